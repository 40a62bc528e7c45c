// A file may be dropped anywhere on its field, and a form that takes a while says so. Without this all works by hand.
const drop = document.querySelector(".drop");
const input = drop?.querySelector("input");
if (drop && input) {
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer?.files.length) {
      input.files = event.dataTransfer.files;
      input.form.requestSubmit();
    }
  });
}
for (const form of document.querySelectorAll("form[data-busy]")) {
  form.addEventListener("submit", () => {
    const button = form.querySelector("button");
    button.dataset.words ??= button.textContent;
    button.textContent = form.dataset.busy;
    button.disabled = true;
  });
}
// The back button may show the page as it was left.
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form[data-busy] button[disabled]")) {
    button.disabled = false;
    button.textContent = button.dataset.words;
  }
});
