// What stands on the page comes anew whenever it changes; the browser asks again by itself when the line is lost.
const live = document.getElementById("live");
if (live?.dataset.events) {
  const source = new EventSource(live.dataset.events);
  source.onmessage = (event) => {
    const told = JSON.parse(event.data);
    live.innerHTML = told.html;
    if (!told.open) {
      source.close();
      live.querySelector("a.button")?.focus();
    }
  };
}
