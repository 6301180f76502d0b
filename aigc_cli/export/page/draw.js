// A sample: from noise to what is seen or heard of it, (1, ...raw shape), by the graphs of a model and what is asked for.
async function drawn(about, graphs, noise, asked, pause) {
  const told = label => about.classes.length ? {label: T([1], Float64Array.of(label))} : {}, [first, last] = graphs;
  let found;
  if (about.kind === "flow") found = {content: T([1, ...about.shape], await followed(about, (x, time, label) =>
    run(first, {x: T([1, ...about.shape], x), time: T([1], Float32Array.of(time)), ...told(label)}).velocity.d, noise, asked, pause))};
  else found = run(first, {latent: T([1, about.noise], noise), ...told(asked.label)});
  return (last ? run(last, {[last.inputs[0]]: found.content}) : found).raw.d;
}
// Where the path from noise at time 0 ends at time 1: each step by the velocity where it begins, or the mean of that and the one
// where it would end. Guidance moves it away from that of any class.
async function followed(about, velocity, x, {steps, solver, guidance, label}, pause) {
  const at = (x, time) => { const told = velocity(x, time, label); if (guidance === 1 || !about.classes.length) return told;
    return velocity(x, time, about.classes.length).map((v, i) => v + guidance * (told[i] - v)); };
  for (let k = 0; k < steps; k++) {
    const one = at(x, k / steps), then = x.map((v, i) => v + one[i] / steps);
    if (solver === "heun") { const two = at(then, (k + 1) / steps); x = x.map((v, i) => v + (one[i] + two[i]) / 2 / steps); } else x = then;
    await pause();
  }
  return x;
}
// What shows a sample, as an element of the page.
function shown(about, raw, name) {
  if (about.raw_shape.length === 2) return Object.assign(document.createElement("audio"), {controls: true, ariaLabel: name, src: URL.createObjectURL(wav(raw, about.raw_shape, about.rate))});
  const [c, t, h, w] = about.raw_shape.length === 4 ? about.raw_shape : [about.raw_shape[0], 1, ...about.raw_shape.slice(1)];
  const canvas = Object.assign(document.createElement("canvas"), {width: w, height: h, role: "img", ariaLabel: name}), brush = canvas.getContext("2d");
  const frame = f => { const data = new ImageData(w, h); for (let p = 0; p < h * w; p++) for (let k = 0; k < 4; k++)
    data.data[4 * p + k] = k === 3 ? 255 : raw[((c === 1 ? 0 : k) * t + f) * h * w + p]; brush.putImageData(data, 0, 0); };
  frame(0);
  if (t > 1) { let f = 0; const timer = setInterval(() => { if (canvas.isConnected) frame(f = (f + 1) % t); else if (f) clearInterval(timer); }, 1000 / (about.rate ?? 8)); }
  return canvas;
}
function wav(raw, [channels, count], rate) {  // int16
  const data = new DataView(new ArrayBuffer(44 + 2 * raw.length)), word = (at, text) => { for (let i = 0; i < 4; i++) data.setUint8(at + i, text.charCodeAt(i)); };
  ["RIFF", "WAVE", "fmt ", "data"].forEach((text, i) => word([0, 8, 12, 36][i], text));
  [[4, 36 + 2 * raw.length], [16, 16], [24, rate], [28, 2 * channels * rate], [40, 2 * raw.length]].forEach(([at, v]) => data.setUint32(at, v, true));
  [[20, 1], [22, channels], [32, 2 * channels], [34, 16]].forEach(([at, v]) => data.setUint16(at, v, true));
  for (let i = 0; i < raw.length; i++) data.setInt16(44 + 2 * i, raw[i % channels * count + Math.floor(i / channels)], true);
  return new Blob([data], {type: "audio/wav"});
}
