// A small interpreter of ONNX graphs: enough for generators of pictures and for transformers. A tensor is
// {s: shape, d: its values in rows}; whole numbers and truth values are kept as float64.
const size = s => s.reduce((a, b) => a * b, 1);
const T = (s, d) => ({s, d});
const F = n => new Float32Array(n), I = n => new Float64Array(n);
const strides = s => { const r = []; let p = 1; for (let i = s.length - 1; i >= 0; i--) { r[i] = p; p *= s[i]; } return r; };
const ints = t => Array.from(t.d, Number);
const axisOf = (a, n) => a < 0 ? a + n : a;
const shapes = (a, b) => { const n = Math.max(a.length, b.length), r = []; for (let i = 0; i < n; i++) {
  const x = a[a.length - n + i] ?? 1, y = b[b.length - n + i] ?? 1; r.push(x === 1 ? y : x); } return r; };
const stepsOf = (s, out) => { const st = strides(s), o = out.length - s.length; return out.map((_, i) => i < o || s[i - o] === 1 ? 0 : st[i - o]); };
function each(ts, f, like) {  // f over broadcast tensors
  const s = ts.map(t => t.s).reduce(shapes), n = size(s), out = like === "int" ? I(n) : F(n);
  if (ts.every(t => t.d.length === n)) {
    for (let i = 0; i < n; i++) out[i] = f(ts[0].d[i], ts[1] && ts[1].d[i], ts[2] && ts[2].d[i]);
    return T(s, out);
  }
  const st = ts.map(t => stepsOf(t.s, s)), at = ts.map(() => 0), c = s.map(() => 0);
  for (let i = 0; i < n; i++) {
    out[i] = f(ts[0].d[at[0]], ts[1] && ts[1].d[at[1]], ts[2] && ts[2].d[at[2]]);
    for (let k = s.length - 1; k >= 0; k--) {
      for (let j = 0; j < ts.length; j++) at[j] += st[j][k];
      if (++c[k] < s[k]) break;
      for (let j = 0; j < ts.length; j++) at[j] -= st[j][k] * s[k];
      c[k] = 0;
    }
  }
  return T(s, out);
}
const kind = t => t.d instanceof Float32Array ? "float" : "int";
const number = f => (n, a, b) => [each([a, b], f, kind(a) === "int" && kind(b) === "int" ? "int" : "float")];
const truth = f => (n, a, b) => [each([a, b], (x, y) => f(x, y) ? 1 : 0, "int")];
const one = f => (n, a) => [T(a.s, Float32Array.from(a.d, f))];
const even = x => { const r = Math.round(x); return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : r; };
function pick(t, out, at) {  // values of t at places that at(coordinates) gives
  const n = size(out), d = t.d instanceof Float32Array ? F(n) : I(n), c = out.map(() => 0);
  for (let i = 0; i < n; i++) { d[i] = t.d[at(c)]; for (let k = out.length - 1; k >= 0; k--) { if (++c[k] < out[k]) break; c[k] = 0; } }
  return T(out, d);
}
function matmul(a, b) {
  let [m, k] = a.s.slice(-2), [, n] = b.s.slice(-2);
  const lead = shapes(a.s.slice(0, -2), b.s.slice(0, -2)), count = size(lead);
  const sa = stepsOf(a.s.slice(0, -2), lead).map(x => x * m * k), sb = stepsOf(b.s.slice(0, -2), lead).map(x => x * k * n);
  const out = F(count * m * n), c = lead.map(() => 0);
  for (let i = 0; i < count; i++) {
    let pa = 0, pb = 0;
    for (let j = 0; j < lead.length; j++) { pa += c[j] * sa[j]; pb += c[j] * sb[j]; }
    for (let r = 0; r < m; r++) for (let q = 0; q < k; q++) {
      const v = a.d[pa + r * k + q], at = pb + q * n, to = (i * m + r) * n;
      for (let j = 0; j < n; j++) out[to + j] += v * b.d[at + j];
    }
    for (let j = lead.length - 1; j >= 0; j--) { if (++c[j] < lead[j]) break; c[j] = 0; }
  }
  return T([...lead, m, n], out);
}
const turned = t => pick(t, [t.s[1], t.s[0]], c => c[1] * t.s[1] + c[0]);
const flat = t => t.s.length === 3 ? T([t.s[0], t.s[1], 1, t.s[2]], t.d) : t;  // of what lies along time, one row
function conv(n, x, w, b, back) {
  const line = x.s.length === 3, a = n.a; x = flat(x); w = flat(w);
  const two = (v, d) => line ? [d, (v ?? [d])[0]] : v ?? [d, d], [sy, sx] = two(a.strides, 1), [dy, dx] = two(a.dilations, 1);
  const p = line ? [0, (a.pads ?? [0, 0])[0], 0, (a.pads ?? [0, 0])[1]] : a.pads ?? [0, 0, 0, 0], g = a.group ?? 1;
  const [N, C, H, W] = x.s, [, , kh, kw] = w.s, [oy, ox] = line ? [0, (a.output_padding ?? [0])[0]] : a.output_padding ?? [0, 0];
  const M = back ? w.s[1] * g : w.s[0];
  const h = back ? (H - 1) * sy - p[0] - p[2] + dy * (kh - 1) + oy + 1 : Math.floor((H + p[0] + p[2] - dy * (kh - 1) - 1) / sy) + 1;
  const v = back ? (W - 1) * sx - p[1] - p[3] + dx * (kw - 1) + ox + 1 : Math.floor((W + p[1] + p[3] - dx * (kw - 1) - 1) / sx) + 1;
  const out = F(N * M * h * v), big = back ? [h, v] : [H, W], small = back ? [H, W] : [h, v], cg = C / g, mg = M / g;
  if (b) for (let i = 0; i < N; i++) for (let m = 0; m < M; m++) out.fill(b.d[m], (i * M + m) * h * v, (i * M + m + 1) * h * v);
  for (let i = 0; i < N; i++) for (let q = 0; q < g; q++) for (let c = 0; c < cg; c++) for (let m = 0; m < mg; m++)
    for (let ky = 0; ky < kh; ky++) for (let kx = 0; kx < kw; kx++) {
      const wv = w.d[(back ? ((q * cg + c) * mg + m) : ((q * mg + m) * cg + c)) * kh * kw + ky * kw + kx];
      const px = (i * C + q * cg + c) * H * W, po = (i * M + q * mg + m) * h * v;
      for (let y = 0; y < small[0]; y++) { const Y = y * sy + ky * dy - p[0]; if (Y < 0 || Y >= big[0]) continue;
        for (let z = 0; z < small[1]; z++) { const Z = z * sx + kx * dx - p[1]; if (Z < 0 || Z >= big[1]) continue;
          if (back) out[po + Y * v + Z] += wv * x.d[px + y * W + z]; else out[po + y * v + z] += wv * x.d[px + Y * W + Z]; } }
    }
  return T(line ? [N, M, v] : [N, M, h, v], out);
}
function along(t, axis, f) {  // f over the values of each line along an axis
  const k = t.s[axis], inner = size(t.s.slice(axis + 1)), outer = size(t.s.slice(0, axis));
  for (let o = 0; o < outer; o++) for (let i = 0; i < inner; i++) f(o * k * inner + i, inner, k, o * inner + i);
}
const reduce = (start, add, end) => (n, a, axes) => {
  let t = a; const keep = n.a.keepdims ?? 1, list = (axes ? ints(axes) : n.a.axes ?? a.s.map((_, i) => i)).map(x => axisOf(x, a.s.length));
  for (const axis of list) {
    const s = t.s.map((x, i) => i === axis ? 1 : x), d = F(size(s));
    along(t, axis, (at, step, k, to) => { let v = start; for (let j = 0; j < k; j++) v = add(v, t.d[at + j * step]); d[to] = end(v, k); });
    t = T(s, d);
  }
  return [keep ? t : T(a.s.filter((_, i) => !list.includes(i)), t.d)];
};
const scaled = (x, at, step, k, eps, f) => { let m = 0, v = 0; for (let j = 0; j < k; j++) m += x[at + j * step]; m /= k;
  for (let j = 0; j < k; j++) v += (x[at + j * step] - m) ** 2; const r = 1 / Math.sqrt(v / k + eps);
  for (let j = 0; j < k; j++) f(at + j * step, (x[at + j * step] - m) * r, j); };
const erf = x => { const s = Math.sign(x), z = Math.abs(x), t = 1 / (1 + 0.5 * z);
  const y = -z * z - 1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807 +
    t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))))))); return s * (1 - t * Math.exp(y)); };
const OPS = {
  Add: number((x, y) => x + y), Sub: number((x, y) => x - y), Mul: number((x, y) => x * y), Pow: number((x, y) => x ** y),
  Div: (n, a, b) => [kind(a) === "int" && kind(b) === "int" ? each([a, b], (x, y) => Math.trunc(x / y), "int") : each([a, b], (x, y) => x / y)],
  Min: number(Math.min), Max: number(Math.max), Mod: number((x, y) => x - y * Math.floor(x / y)),
  And: truth((x, y) => x && y), Or: truth((x, y) => x || y), Equal: truth((x, y) => x === y), Less: truth((x, y) => x < y),
  LessOrEqual: truth((x, y) => x <= y), Greater: truth((x, y) => x > y), GreaterOrEqual: truth((x, y) => x >= y),
  Not: (n, a) => [T(a.s, I(a.d.length).map((_, i) => a.d[i] ? 0 : 1))], IsNaN: (n, a) => [T(a.s, I(a.d.length).map((_, i) => a.d[i] !== a.d[i] ? 1 : 0))],
  Where: (n, c, a, b) => [each([c, a, b], (x, y, z) => x ? y : z, kind(a))],
  Tanh: one(Math.tanh), Exp: one(Math.exp), Log: one(Math.log), Sqrt: one(Math.sqrt), Reciprocal: one(x => 1 / x), Sin: one(Math.sin),
  Cos: one(Math.cos), Erf: one(erf), Abs: one(Math.abs), Round: one(even), Relu: one(x => x > 0 ? x : 0), Sigmoid: one(x => 1 / (1 + Math.exp(-x))),
  Neg: (n, a) => [T(a.s, a.d.map(x => -x))], LeakyRelu: (n, a) => { const k = n.a.alpha ?? 0.01; return [T(a.s, a.d.map(x => x < 0 ? k * x : x))]; },
  Clip: (n, a, lo, hi) => { const l = lo ? lo.d[0] : -Infinity, h = hi ? hi.d[0] : Infinity; return [T(a.s, a.d.map(x => Math.min(h, Math.max(l, x))))]; },
  Gelu: (n, a) => [T(a.s, a.d.map(n.a.approximate === "tanh" ? x => 0.5 * x * (1 + Math.tanh(0.7978845608 * (x + 0.044715 * x ** 3))) : x => 0.5 * x * (1 + erf(x / Math.SQRT2))))],
  MatMul: (n, a, b) => [matmul(a, b)],
  Gemm: (n, a, b, c) => { const r = matmul(n.a.transA ? turned(a) : a, n.a.transB ? turned(b) : b), k = n.a.alpha ?? 1, l = n.a.beta ?? 1;
    return [c ? each([r, c], (x, y) => k * x + l * y) : k === 1 ? r : T(r.s, r.d.map(x => k * x))]; },
  Conv: (n, x, w, b) => [conv(n, x, w, b, false)], ConvTranspose: (n, x, w, b) => [conv(n, x, w, b, true)],
  BatchNormalization: (n, x, g, b, m, v) => { const inner = size(x.s.slice(2)), C = x.s[1], e = n.a.epsilon ?? 1e-5;
    return [T(x.s, x.d.map((y, i) => { const c = Math.floor(i / inner) % C; return (y - m.d[c]) / Math.sqrt(v.d[c] + e) * g.d[c] + b.d[c]; }))]; },
  InstanceNormalization: (n, x, g, b) => { const k = size(x.s.slice(2)), d = F(x.d.length);
    for (let i = 0; i < x.s[0] * x.s[1]; i++) { const c = i % x.s[1]; scaled(x.d, i * k, 1, k, n.a.epsilon ?? 1e-5, (at, v) => { d[at] = v * g.d[c] + b.d[c]; }); } return [T(x.s, d)]; },
  LayerNormalization: (n, x, g, b) => { const k = size(x.s.slice(axisOf(n.a.axis ?? -1, x.s.length))), d = F(x.d.length);
    for (let i = 0; i < x.d.length; i += k) scaled(x.d, i, 1, k, n.a.epsilon ?? 1e-5, (at, v, j) => { d[at] = v * g.d[j] + (b ? b.d[j] : 0); }); return [T(x.s, d)]; },
  Softmax: (n, a) => { const d = F(a.d.length); along(a, axisOf(n.a.axis ?? -1, a.s.length), (at, st, k) => { let m = -Infinity, t = 0;
    for (let j = 0; j < k; j++) m = Math.max(m, a.d[at + j * st]); for (let j = 0; j < k; j++) t += d[at + j * st] = Math.exp(a.d[at + j * st] - m);
    for (let j = 0; j < k; j++) d[at + j * st] /= t; }); return [T(a.s, d)]; },
  ReduceMean: reduce(0, (x, y) => x + y, (v, k) => v / k), ReduceSum: reduce(0, (x, y) => x + y, v => v), ReduceMax: reduce(-Infinity, Math.max, v => v),
  Identity: (n, a) => [a], Shape: (n, a) => { const s = a.s.slice(n.a.start ?? 0, n.a.end ?? a.s.length); return [T([s.length], I(s.length).map((_, i) => s[i]))]; },
  Cast: (n, a) => n.a.to === 1 ? [T(a.s, Float32Array.from(a.d))] : n.a.to === 9 ? [T(a.s, I(a.d.length).map((_, i) => a.d[i] ? 1 : 0))] : [T(a.s, Float64Array.from(a.d, Math.trunc))],
  Reshape: (n, a, s) => { const r = ints(s).map((x, i) => x === 0 && !n.a.allowzero ? a.s[i] : x), at = r.indexOf(-1);
    if (at >= 0) { r[at] = 1; const rest = size(r); r[at] = rest ? a.d.length / rest : 0; } return [T(r, a.d)]; },
  Flatten: (n, a) => { const k = size(a.s.slice(0, n.a.axis ?? 1)); return [T([k, a.d.length / k], a.d)]; },
  Squeeze: (n, a, x) => { const l = x ? ints(x).map(i => axisOf(i, a.s.length)) : a.s.map((v, i) => v === 1 ? i : -1); return [T(a.s.filter((_, i) => !l.includes(i)), a.d)]; },
  Unsqueeze: (n, a, x) => { const k = a.s.length + x.d.length, s = [...a.s]; for (const i of ints(x).map(i => axisOf(i, k)).sort((p, q) => p - q)) s.splice(i, 0, 1); return [T(s, a.d)]; },
  Transpose: (n, a) => { const p = n.a.perm ?? a.s.map((_, i) => a.s.length - 1 - i), st = strides(a.s), to = p.map(i => st[i]);
    return [pick(a, p.map(i => a.s[i]), c => { let r = 0; for (let k = 0; k < c.length; k++) r += c[k] * to[k]; return r; })]; },
  Expand: (n, a, s) => { const out = shapes(a.s, ints(s)), st = stepsOf(a.s, out); return [pick(a, out, c => c.reduce((r, v, k) => r + v * st[k], 0))]; },
  Concat: (n, ...ts) => { const axis = axisOf(n.a.axis, ts[0].s.length), s = [...ts[0].s]; s[axis] = ts.reduce((r, t) => r + t.s[axis], 0);
    const out = kind(ts[0]) === "float" ? F(size(s)) : I(size(s)), inner = size(s.slice(axis + 1)), outer = size(s.slice(0, axis)); let at = 0;
    for (let o = 0; o < outer; o++) for (const t of ts) { const k = t.s[axis] * inner; out.set(t.d.subarray(o * k, (o + 1) * k), at); at += k; } return [T(s, out)]; },
  Slice: (n, a, from, to, axes, step) => { const s = [...a.s], st = strides(a.s), first = s.map(() => 0), by = s.map(() => 1);
    (axes ? ints(axes) : ints(from).map((_, i) => i)).forEach((x, i) => { const k = axisOf(x, s.length), d = step ? Number(step.d[i]) : 1, L = a.s[k];
      const lim = v => { v = Number(v); if (v < 0) v += L; return Math.min(d > 0 ? L : L - 1, Math.max(d > 0 ? 0 : -1, v)); };
      const b = lim(from.d[i]), e = Number(to.d[i]) < -L ? (d > 0 ? 0 : -1) : lim(to.d[i]); first[k] = b; by[k] = d; s[k] = Math.max(0, Math.ceil((e - b) / d)); });
    return [pick(a, s, c => { let r = 0; for (let k = 0; k < c.length; k++) r += (first[k] + c[k] * by[k]) * st[k]; return r; })]; },
  Split: (n, a, parts) => { const axis = axisOf(n.a.axis ?? 0, a.s.length), L = a.s[axis], k = n.o.length, l = parts ? ints(parts) : Array.from({length: k}, (_, i) => Math.min(Math.ceil(L / k), L - i * Math.ceil(L / k)));
    let at = 0; return l.map(w => { const r = OPS.Slice({a: {}}, a, T([1], [at]), T([1], [at + w]), T([1], [axis]))[0]; at += w; return r; }); },
  Gather: (n, a, i) => { const x = axisOf(n.a.axis ?? 0, a.s.length), inner = size(a.s.slice(x + 1)), L = a.s[x], outer = size(a.s.slice(0, x)), k = i.d.length;
    const s = [...a.s.slice(0, x), ...i.s, ...a.s.slice(x + 1)], d = kind(a) === "float" ? F(size(s)) : I(size(s));
    for (let o = 0; o < outer; o++) for (let j = 0; j < k; j++) { const at = (o * L + axisOf(i.d[j], L)) * inner; d.set(a.d.subarray(at, at + inner), (o * k + j) * inner); } return [T(s, d)]; },
  GatherND: (n, a, i) => { const k = i.s.at(-1), st = strides(a.s), inner = size(a.s.slice(k)), count = i.d.length / k, s = [...i.s.slice(0, -1), ...a.s.slice(k)];
    const d = kind(a) === "float" ? F(size(s)) : I(size(s)); for (let j = 0; j < count; j++) { let at = 0; for (let q = 0; q < k; q++) at += axisOf(i.d[j * k + q], a.s[q]) * st[q];
      d.set(a.d.subarray(at, at + inner), j * inner); } return [T(s, d)]; },
  Range: (n, a, b, c) => { const k = Math.max(0, Math.ceil((b.d[0] - a.d[0]) / c.d[0])); return [T([k], I(k).map((_, i) => a.d[0] + i * c.d[0]))]; },
  ConstantOfShape: (n, s) => { const v = n.a.value ?? T([1], F(1)), k = size(ints(s)); return [T(ints(s), kind(v) === "float" ? F(k).fill(v.d[0]) : I(k).fill(v.d[0]))]; },
};
// A graph is {nodes: [{op, i, o, a}], constants: {name: tensor}, outputs: [name]}.
function run(graph, given) {
  const known = {...graph.constants, ...given};
  for (const node of graph.nodes) OPS[node.op](node, ...node.i.map(name => name ? known[name] : undefined)).forEach((t, k) => { known[node.o[k]] = t; });
  return Object.fromEntries(graph.outputs.map(name => [name, known[name]]));
}
// Numbers between 0 and 1 from a seed, always the same (mulberry32), and standard normal ones.
const uniform = seed => () => { seed |= 0; seed = seed + 0x6D2B79F5 | 0; let t = Math.imul(seed ^ seed >>> 15, 1 | seed); t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t; return ((t ^ t >>> 14) >>> 0) / 4294967296; };
const normal = draw => () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
function tensors(about, bytes) {
  return Object.fromEntries(Object.entries(about).map(([name, t]) => [name, T(t.shape, t.values ? Float64Array.from(t.values)
    : new Float32Array(bytes, t.at, size(t.shape)))]));
}
