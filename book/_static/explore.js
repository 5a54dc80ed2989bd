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

  // A control for each parameter. The state of them all is an index into the choices for each; `changed` is told it.
  function controls(form, params, choices, changed) {
    const state = params.map(({ name, value }) => choices[name].indexOf(value));
    form.addEventListener("submit", (event) => event.preventDefault());
    params.forEach(({ name, bind }, place) => {
      const labels = choices[name];
      const box = document.createElement("span");
      const label = document.createElement("label");
      label.append(bind.name + " ");
      let control;
      if (bind.input === "range") {
        control = Object.assign(document.createElement("input"), { type: "range", min: 0, max: labels.length - 1 });
        control.value = state[place];
        const shown = document.createElement("span");
        shown.ariaHidden = "true"; // the slider says it
        const say = () => (control.ariaValueText = shown.textContent = labels[control.value]);
        control.addEventListener("input", () => {
          say();
          state[place] = Number(control.value);
          changed();
        });
        say();
        label.append(control);
        box.append(label, shown);
      } else {
        control = document.createElement("select");
        for (const one of labels) control.add(new Option(one));
        control.selectedIndex = state[place];
        control.addEventListener("change", () => {
          state[place] = control.selectedIndex;
          changed();
        });
        label.append(control);
        box.append(label);
      }
      control.name = name;
      form.append(box);
    });
    return state;
  }

  const key = (state) => state.join("|");
  const words = (state, params, choices) =>
    params.map(({ name, bind }, place) => `${bind.name} ${choices[name][state[place]]}`).join(", ");
  function short(value) {
    if (value === null || value === undefined) return "";
    return typeof value !== "number" || Number.isInteger(value) ? String(value) : String(+value.toPrecision(3));
  }

  // The rows of a state as text: three columns become rows, columns and cells, others stay a list.
  function crosstab(rows, columns) {
    const texts = rows.map((row) => columns.map((column) => short(row[column])));
    const pairs = new Set(texts.map(([first, second]) => `${first}\n${second}`));
    if (columns.length !== 3 || pairs.size !== rows.length) return { heads: columns.slice(1), cells: texts };
    const heads = [...new Set(texts.map((row) => row[1]))];
    const at = new Map(texts.map(([first, second, third]) => [`${first}\n${second}`, third]));
    const names = [...new Set(texts.map((row) => row[0]))];
    return { heads, cells: names.map((name) => [name, ...heads.map((head) => at.get(`${name}\n${head}`) ?? "")]) };
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
    const { choices, columns, titles } = spec.usermeta;
    const params = spec.params.filter((param) => param.bind);
    const find = (selector) => figure.querySelector(selector);
    const picture = find(".semhub-chart");
    let view;
    const signals = () => params.map(({ name }, place) => [name, choices[name][state[place]]]);
    const show = async () => {
      for (const [name, value] of signals()) view.signal(name, value);
      const shown = key(state);
      await view.runAsync();
      figure.dataset.state = shown;
    };
    const state = controls(find(".semhub-controls"), params, choices, () => {
      find(".semhub-title").textContent = titles[key(state)];
      find(".semhub-values summary span").textContent = words(state, params, choices);
      const rows = spec.data.values.filter((row) => signals().every(([name, value]) => row[name] === value));
      tabulate(find(".semhub-values table"), crosstab(rows, columns));
      if (view) show();
      else picture.replaceChildren(); // it would show another state than the controls say
    });
    // The page has controls of its own, the same for charts and texts, so Vega need not make any.
    const drawn = { ...spec, params: spec.params.map(({ bind, ...param }) => param) };
    const draw = async () => {
      await vega();
      const place = document.createElement("div");
      place.className = "semhub-chart semhub-waiting"; // the still picture stays until the chart is there
      place.style.minHeight = picture.style.minHeight;
      picture.after(place);
      ({ view } = await vegaEmbed(place, drawn, { actions: false, renderer: "svg" }));
      await show();
      picture.remove();
      place.classList.remove("semhub-waiting");
      figure.dataset.drawn = "yes";
    };
    const near = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      draw().catch((error) => {
        console.error(error);
        picture.append("The chart could not be drawn, so the controls change its title and its values alone.");
      });
    }, { rootMargin: "800px" });
    near.observe(figure);
  }

  function text(figure, { params, usermeta: { choices } }) {
    const states = new Map([...figure.querySelectorAll("template")].map((t) => [t.dataset.state, t.content]));
    const find = (selector) => figure.querySelector(selector);
    const state = controls(find(".semhub-controls"), params, choices, () => {
      find(".semhub-text").replaceChildren(states.get(key(state)).cloneNode(true));
      find(".semhub-state").textContent = words(state, params, choices);
      figure.dataset.state = key(state);
    });
    figure.dataset.drawn = "yes";
  }

  function start() {
    for (const figure of document.querySelectorAll("figure.semhub-explorer")) {
      const carried = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
      if (carried.data) chart(figure, carried);
      else text(figure, carried);
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
