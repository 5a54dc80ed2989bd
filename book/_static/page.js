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
});
