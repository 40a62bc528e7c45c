// One key for each kind: what was decided is on the disk before the next message is shown. Without this the buttons do.
const desk = document.getElementById("desk");
let shown = performance.now();
let busy = false;

async function send(form, button) {
  if (busy) return;
  busy = true;
  const data = new FormData(form);
  if (button?.name) data.set(button.name, button.value);
  data.set("seconds", ((performance.now() - shown) / 1000).toFixed(2));
  try {
    const answer = await fetch(location.pathname, {
      method: "POST", body: new URLSearchParams(data), headers: { Accept: "application/json" }, redirect: "error",
    });
    if (answer.status === 401 || answer.status === 403) throw new Error("signed out");
    desk.innerHTML = (await answer.json()).html;
    shown = performance.now();
    desk.querySelector(".message")?.focus({ preventScroll: true });
  } catch {
    // The page itself sends it, and the server says what is wrong; nothing that was decided is lost.
    const field = document.createElement("input");
    field.type = "hidden";
    if (button?.name) {
      field.name = button.name;
      field.value = button.value;
      form.append(field);
    }
    form.dataset.plain = "1";
    form.submit();
  } finally {
    busy = false;
  }
}

desk.addEventListener("submit", (event) => {
  if (event.target.dataset.plain) return;
  event.preventDefault();
  send(event.target, event.submitter);
});
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest("input, select, textarea, a") || (event.target.closest("button") && [" ", "Enter"].includes(event.key))) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const button = [...desk.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  if (button) {
    event.preventDefault();
    send(button.form, button);
  }
});
