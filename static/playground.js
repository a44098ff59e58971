// Texts as they are written: one stream for each pane, shown as text and never as markup.
for (const pane of document.querySelectorAll("[data-stream]")) {
  const source = new EventSource(pane.dataset.stream);
  let text = "";
  source.addEventListener("piece", (event) => { text += JSON.parse(event.data).text; pane.textContent = text; });
  const close = (event) => {
    source.close();
    const said = event.data ? JSON.parse(event.data) : { words: "The stream broke off. Press Write to ask again." };
    if (said.text !== undefined) pane.textContent = said.text;
    const line = document.createElement("p");
    line.className = said.good ? "good" : "warn";
    line.textContent = said.words;
    pane.after(line);
  };
  source.addEventListener("end", close);
  source.addEventListener("problem", close);
  source.onerror = (event) => { if (source.readyState !== EventSource.CLOSED) close(event); };
}
