// What pandas, Sphinx and the theme leave to mend for those who listen to the page.
document.addEventListener("DOMContentLoaded", () => {
  // An empty header cell is announced as a header without a name.
  for (const header of document.querySelectorAll("article th")) {
    if (header.textContent.trim()) continue;
    const cell = document.createElement("td");
    cell.className = header.className;
    cell.colSpan = header.colSpan;
    header.replaceWith(cell);
  }
  // A fold says what it folds; the same label on all of them hides that.
  for (const summary of document.querySelectorAll("article summary[aria-label]")) summary.removeAttribute("aria-label");
  // The book's title and the search field stand in it outside of any landmark.
  document.querySelector(".bd-sidebar-primary")?.setAttribute("role", "complementary");
  document.querySelector(".bd-sidebar-primary")?.setAttribute("aria-label", "The book");
  // The theme lets the keyboard reach code and tables that scroll, not formulas and the texts of explorers. Another size,
  // another font or another choice may make one scroll.
  const boxes = document.querySelectorAll("article div.math, article .semhub-text");
  const mark = () => boxes.forEach((box) => (box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1));
  document.fonts.ready.then(mark);
  for (const event of ["load", "resize", "input", "change"]) window.addEventListener(event, () => setTimeout(mark));
  // On a phone the theme forgets which button opened the contents.
  for (const side of ["primary", "secondary"]) {
    const button = document.querySelector(`.${side}-toggle`);
    document.getElementById(`pst-${side}-sidebar-modal`)?.addEventListener("close", () => button?.focus());
  }
});
