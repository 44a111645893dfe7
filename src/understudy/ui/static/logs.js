// Follows a job's output. EventSource connects again with the cursor of the last event by itself.
"use strict";
(() => {
  const log = document.getElementById("log");
  if (!log) return;
  const most = 5000; // lines kept on the page
  const say = document.getElementById("log-state");
  const more = document.getElementById("earlier");
  const keep = document.getElementById("keep");
  const several = Number(log.dataset.several) > 1;
  let source = null;

  const query = () => {
    const chosen = new URLSearchParams({ stream: document.getElementById("stream").value });
    const rank = document.getElementById("rank").value;
    if (rank) chosen.set("rank", rank);
    return chosen;
  };

  function element([attempt, rank, seq, t, stream, text]) {
    const line = document.createElement("span");
    line.className = stream;
    Object.assign(line.dataset, { place: `${attempt}.${rank}`, seq });
    line.title = `${new Date(1000 * t).toLocaleString()}, attempt ${attempt}, replica ${rank}`;
    if (several) {
      const mark = document.createElement("b");
      mark.textContent = `[${rank}] `;
      line.append(mark);
    }
    line.append(text, "\n");
    return line;
  }

  // Number of the first line that is shown, by attempt and replica.
  function firsts() {
    const found = new Map();
    for (const line of log.children) {
      const seq = Number(line.dataset.seq);
      if (seq && !found.has(line.dataset.place)) found.set(line.dataset.place, seq);
    }
    return [...found].filter(([, seq]) => seq > 1);
  }

  function add(lines) {
    log.append(...lines.map(element));
    while (log.childElementCount > most) log.firstChild.remove();
    if (keep.checked) log.scrollTop = log.scrollHeight;
    more.disabled = firsts().length === 0;
  }

  function follow() {
    source?.close();
    log.replaceChildren();
    source = new EventSource(`${log.dataset.job}/follow?${query()}`);
    say.textContent = "following";
    source.onopen = () => { say.textContent = "following"; };
    source.onmessage = (event) => add(JSON.parse(event.data));
    source.onerror = () => {
      say.textContent = source.readyState === EventSource.CLOSED ? "stopped: reload this page" : "connecting again";
    };
    source.addEventListener("end", () => {
      source.close();
      say.textContent = "the job has ended";
    });
  }

  more.addEventListener("click", async () => {
    const before = firsts().map(([place, seq]) => `${place}:${seq}`).join(",");
    const chosen = query();
    chosen.set("before", before);
    more.disabled = true;
    const answer = await fetch(`${log.dataset.job}/earlier?${chosen}`);
    const lines = answer.ok ? await answer.json() : [];
    const height = log.scrollHeight;
    keep.checked = false;
    log.prepend(...lines.map(element));
    log.scrollTop += log.scrollHeight - height;
    more.disabled = !lines.some(([, , seq]) => seq) || firsts().length === 0;
  });
  for (const id of ["rank", "stream"]) document.getElementById(id).addEventListener("change", follow);
  document.getElementById("log-choice").addEventListener("submit", (event) => event.preventDefault());
  follow();
})();
