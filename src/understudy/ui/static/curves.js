// Draws a job's numbers over steps as SVG, and reads points out by pointer or arrow keys.
"use strict";
(() => {
  const holder = document.getElementById("curves");
  if (!holder) return;
  const every = Number(holder.dataset.every);
  const [width, height, left, right, top, bottom] = [420, 220, 52, 10, 10, 26];
  const drawn = new Map();

  const svg = (name, facts = {}, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const short = (x) => (x !== 0 && (Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(4))));

  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-9; x += step) found.push(x);
    return found;
  }

  function range(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
    if (low === high) { const pad = Math.abs(low) / 2 || 1; return [low - pad, high + pad]; }
    return [low, high];
  }

  function draw(figure, curve) {
    const points = curve.lines.flatMap((line) => line.points.map(([step, value]) => ({ step, value, rank: line.rank })));
    const finite = points.filter((p) => p.value !== null);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    if (finite.length) {
      const [x0, x1] = range(points.map((p) => p.step));
      const [y0, y1] = range(finite.map((p) => p.value));
      const x = (step) => left + ((step - x0) / (x1 - x0)) * (width - left - right);
      const y = (value) => top + ((y1 - value) / (y1 - y0)) * (height - top - bottom);
      for (const tick of ticks(y0, y1, 4)) {
        picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
        picture.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
      }
      for (const tick of ticks(x0, x1, 4)) {
        picture.append(svg("text", { x: x(tick), y: height - 8, "text-anchor": "middle" }, short(tick)));
      }
      curve.lines.forEach((line, number) => {
        let path = "";
        let open = false;
        for (const [step, value] of line.points) {
          if (value !== null) path += `${open ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
          open = value !== null;
        }
        const stroke = svg("path", { class: `c${number}`, d: path });
        stroke.append(svg("title", {}, `replica ${line.rank}`));
        picture.append(stroke);
        const shown = line.points.filter(([, value]) => value !== null);
        if (shown.length === 1) picture.append(svg("circle", { class: `c${number}`, cx: x(shown[0][0]), cy: y(shown[0][1]), r: 3 }));
      });
      figure.mark = (p) => picture.append(svg("circle", { class: "c0 reader", cx: x(p.step), cy: y(p.value), r: 4 }));
      figure.stepAt = (position) => x0 + ((position * width - left) / (width - left - right)) * (x1 - x0);
    }
    const last = finite[finite.length - 1];
    const words = last ? `${finite[0].value.toPrecision(4)} at step ${finite[0].step} to ${last.value.toPrecision(4)} at step ${last.step}` : "no finite value";
    picture.setAttribute("aria-label", `${curve.name} over steps: ${words}`);
    figure.node.querySelector("svg").replaceWith(picture);
    figure.points = finite;
    if (figure.chosen !== null) read(figure, figure.chosen);
    else figure.output.textContent = last ? `${short(last.value)} at step ${last.step}` : "no finite value";
  }

  function read(figure, index) {
    if (!figure.points.length) return;
    figure.chosen = Math.max(0, Math.min(figure.points.length - 1, index));
    const point = figure.points[figure.chosen];
    figure.node.querySelector("circle.reader")?.remove();
    figure.mark(point);
    figure.output.textContent = `${short(point.value)} at step ${point.step}${figure.several ? `, replica ${point.rank}` : ""}`;
  }

  function make(curve) {
    const node = document.createElement("figure");
    node.tabIndex = 0;
    const title = document.createElement("figcaption");
    title.textContent = curve.name;
    const output = document.createElement("output");
    node.append(title, svg("svg"), output);
    const figure = { node, output, points: [], chosen: null, several: curve.lines.length > 1, mark: () => {}, stepAt: () => 0 };
    node.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      read(figure, (figure.chosen ?? figure.points.length - 1) + move);
    });
    node.addEventListener("pointermove", (event) => {
      const box = node.querySelector("svg").getBoundingClientRect();
      const step = figure.stepAt((event.clientX - box.left) / box.width);
      let best = 0;
      figure.points.forEach((p, i) => { if (Math.abs(p.step - step) < Math.abs(figure.points[best].step - step)) best = i; });
      read(figure, best);
    });
    if (!drawn.size) holder.replaceChildren();
    drawn.set(curve.name, figure);
    holder.append(node);
    return figure;
  }

  async function look() {
    let found = { final: false, curves: [] };
    try {
      const answer = await fetch(holder.dataset.from);
      if (answer.status === 401) return;
      if (answer.ok) found = await answer.json();
    } catch { /* the server is away */ }
    for (const curve of found.curves) draw(drawn.get(curve.name) || make(curve), curve);
    if (!found.final) setTimeout(look, every);
  }
  look();
})();
