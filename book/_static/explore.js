// The explorers of a page: controls that choose among results which the page carries. No kernel, no network.
(() => {
  "use strict";
  const here = document.currentScript.src;
  let bundle;

  // Vega is large, so it is fetched when a chart comes near the window.
  function vega() {
    bundle ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = new URL("vega.js", here).href;
      script.onload = done;
      script.onerror = () => failed(new Error("vega.js is missing: build the book again"));
      document.head.append(script);
    });
    return bundle;
  }

  // A control for each parameter, as Vega-Lite's `bind` describes it; `changed` is told the state of them all.
  function controls(form, params, changed) {
    const state = new Map(params.map(({ name, value }) => [name, value]));
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const { name, value, bind } of params) {
      const label = document.createElement("label");
      label.append(bind.name + " ");
      const control = document.createElement(bind.input === "range" ? "input" : "select");
      control.name = name;
      label.append(control);
      if (bind.input === "range") {
        Object.assign(control, { type: "range", min: bind.min, max: bind.max, step: bind.step, value });
        const shown = document.createElement("output");
        shown.textContent = value;
        label.append(shown);
        control.addEventListener("input", () => {
          shown.textContent = control.value;
          state.set(name, Number(control.value));
          changed(state);
        });
      } else {
        for (const option of bind.options) control.add(new Option(option, option, option === value, option === value));
        control.addEventListener("change", () => {
          state.set(name, bind.options[control.selectedIndex]);
          changed(state);
        });
      }
      form.append(label);
    }
    return state;
  }

  const key = (state) => [...state.values()].join("|");
  const words = (state) => [...state].map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
  const short = (value) => (value === null ? "" : typeof value === "number" ? String(+value.toPrecision(3)) : value);

  // The rows of a state as text: three columns become rows, columns and cells, others stay a list.
  function crosstab(rows, columns) {
    const [first, second, third] = columns;
    let heads = columns.slice(1);
    let cells = rows.map((row) => columns.map((column) => short(row[column])));
    if (columns.length === 3 && new Set(rows.map((row) => `${row[first]}\n${row[second]}`)).size === rows.length) {
      heads = [...new Set(rows.map((row) => row[second]))];
      const at = new Map(rows.map((row) => [`${row[first]}\n${row[second]}`, row[third]]));
      cells = [...new Set(rows.map((row) => row[first]))].map((name) => [
        name, ...heads.map((head) => short(at.get(`${name}\n${head}`) ?? null)),
      ]);
    }
    return { heads, cells };
  }

  function tabulate(table, { heads, cells }) {
    const element = (name, text, scope) => {
      const made = document.createElement(name);
      made.textContent = text;
      if (scope) made.scope = scope;
      return made;
    };
    const top = table.tHead.rows[0];
    top.replaceChildren(top.cells[0], ...heads.map((head) => element("th", head, "col")));
    table.tBodies[0].replaceChildren(
      ...cells.map(([name, ...rest]) => {
        const row = document.createElement("tr");
        row.append(element("th", name, "row"), ...rest.map((text) => element("td", text)));
        return row;
      }),
    );
  }

  function chart(figure, spec) {
    const { columns, titles } = spec.usermeta;
    const params = spec.params.filter((param) => param.bind);
    let view;
    const find = (selector) => figure.querySelector(selector);
    const state = controls(find(".semhub-controls"), params, () => {
      for (const [name, value] of state) view?.signal(name, value);
      view?.runAsync();
      find(".semhub-title").textContent = titles[key(state)];
      find(".semhub-values summary span").textContent = words(state);
      const rows = spec.data.values.filter((row) => [...state].every(([name, value]) => row[name] === value));
      tabulate(find(".semhub-values table"), crosstab(rows, columns));
    });
    // The page has controls of its own, the same for charts and texts, so Vega need not make any.
    const drawn = { ...spec, params: spec.params.map(({ bind, ...param }) => param) };
    const draw = async () => {
      await vega();
      const place = document.createElement("div");
      place.className = "semhub-chart";
      find(".semhub-chart").after(place); // the still picture stays until the chart is there
      const made = await vegaEmbed(place, drawn, { actions: false, renderer: "svg" });
      for (const [name, value] of state) made.view.signal(name, value);
      await made.view.runAsync();
      find(".semhub-chart").remove();
      view = made.view;
      figure.dataset.drawn = "yes";
    };
    const near = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      draw().catch((error) => {
        figure.querySelectorAll(".semhub-chart + .semhub-chart").forEach((place) => place.remove());
        console.error(error);
      });
    }, { rootMargin: "800px" });
    near.observe(figure);
  }

  function text(figure, params) {
    const states = new Map([...figure.querySelectorAll("template")].map((t) => [t.dataset.state, t.content]));
    const place = figure.querySelector(".semhub-text");
    figure.querySelector(".semhub-print").hidden = true; // the controls say it now
    const state = controls(figure.querySelector(".semhub-controls"), params, () => {
      place.replaceChildren(states.get(key(state)).cloneNode(true));
    });
    figure.dataset.drawn = "yes";
  }

  function start() {
    for (const figure of document.querySelectorAll("figure.semhub-explorer")) {
      const carried = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
      if (carried.data) chart(figure, carried);
      else text(figure, carried.params);
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
