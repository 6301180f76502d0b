"use strict";
// Charts: a logarithmic axis, and the values under the pointer or under a cursor that the arrow keys move.
for (const figure of document.querySelectorAll(".chart")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const [left, top, wide, tall] = data.box, [first, last] = data.x;
  const svg = figure.querySelector("svg"), button = figure.querySelector(".log"), output = figure.querySelector("output");
  const cursor = figure.querySelector(".cursor"), ys = figure.querySelector(".ys"), paths = figure.querySelectorAll(".line");
  const linear = ys.innerHTML, drawn = [...paths].map(path => path.getAttribute("d"));
  const values = data.lines.flatMap(line => line.points.map(point => point[1]));
  const xOf = x => left + (x - first) / (last - first) * wide;
  const stepsOf = line => [...line.points.map(point => point[0]), ...Object.keys(line.lost).map(Number)];
  const steps = [...new Set(data.lines.flatMap(stepsOf))].sort((a, b) => a - b);
  let at = steps.length - 1;
  if (!values.length || values.some(value => value <= 0)) { button.disabled = true; button.title = "not all values are above 0"; }
  const show = place => {
    at = Math.max(0, Math.min(steps.length - 1, place));
    const x = xOf(steps[at]);
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); cursor.setAttribute("visibility", "visible");
    const found = data.lines.map(line => {
      if (steps[at] in line.lost) return line.name + " " + line.lost[steps[at]];
      const before = line.points.filter(point => point[0] <= steps[at]);
      return before.length ? line.name + " " + before[before.length - 1][1].toPrecision(5) : "";
    });
    output.textContent = "step " + steps[at] + ":  " + found.filter(Boolean).join("   ");
  };
  const hide = () => { cursor.setAttribute("visibility", "hidden"); output.textContent = ""; };
  const toggle = () => {
    if (button.disabled) return;
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    if (!on) { ys.innerHTML = linear; paths.forEach((path, n) => path.setAttribute("d", drawn[n])); return; }
    let low = Math.log10(Math.min(...values)), high = Math.log10(Math.max(...values));
    if (high - low < 1e-9) { low -= .5; high += .5; }
    const yOf = y => top + (high - Math.log10(y)) / (high - low) * tall;
    paths.forEach((path, n) => data.lines[n].points.length && path.setAttribute("d", "M" + [...data.lines[n].points, data.lines[n].points.at(-1)].map(
      point => xOf(point[0]).toFixed(1) + "," + yOf(point[1]).toFixed(1)).join("L")));
    let ticks = [];
    for (let power = Math.floor(low); power <= high; power++)
      for (const factor of high - low > 3 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9])
        ticks.push(factor * 10 ** power);
    ticks = ticks.filter(tick => Math.log10(tick) >= low && Math.log10(tick) <= high);
    if (!ticks.length) ticks = [10 ** low, 10 ** high];
    ys.innerHTML = ticks.map(tick => `<line class="grid" x1="${left}" x2="${left + wide}" y1="${yOf(tick)}" y2="${yOf(tick)}"/>` +
      `<text class="y" x="${left - 5}" y="${yOf(tick) + 3}">${+tick.toPrecision(3)}</text>`).join("");
  };
  button.addEventListener("click", toggle);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let best = 0;
    steps.forEach((step, n) => { if (Math.abs(xOf(step) - x) < Math.abs(xOf(steps[best]) - x)) best = n; });
    show(best);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const move = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: steps.length - 1}[event.key];
    if (move !== undefined) { show(move); event.preventDefault(); }
    if (event.key === "l") toggle();
    if (event.key === "Escape") hide();
  });
}
// Samples over steps: one at a time.
for (const box of document.querySelectorAll(".steps")) {
  const range = box.querySelector("input"), output = box.querySelector("output"), frames = box.querySelectorAll(".frame");
  const show = () => {
    frames.forEach((frame, n) => { frame.hidden = n !== +range.value; });
    output.textContent = "step " + frames[range.value].dataset.step;
  };
  range.addEventListener("input", show);
  show();
}
// Pictures that stand in two places are in the page once.
for (const image of document.querySelectorAll("img[data-of]")) {
  const found = document.querySelector("#" + image.dataset.of + " img");
  if (found) image.src = found.src;
}
// A job of a sweep in the table and its line belong together.
for (const row of document.querySelectorAll("tr[data-job]")) {
  const lines = [...row.closest("section").querySelectorAll(".path")].filter(line => line.querySelector("title").textContent.startsWith("job " + row.dataset.job + ":"));
  for (const [event, on] of [["pointerenter", true], ["pointerleave", false]])
    row.addEventListener(event, () => lines.forEach(line => line.classList.toggle("on", on)));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
