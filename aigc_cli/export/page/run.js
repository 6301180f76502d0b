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
const kind = t => t.d instanceof Float32Array ? "float" : "int";
const room = (t, n) => kind(t) === "float" ? F(n) : I(n);
function places(s, steps, first, f) {  // f(where a row along the last axis begins, for each of several tensors; which row)
  const at = [...first], c = s.map(() => 0), rows = size(s.slice(0, -1));
  for (let r = 0; r < rows; r++) {
    f(at, r);
    for (let k = s.length - 2; k >= 0; k--) {
      for (let j = 0; j < at.length; j++) at[j] += steps[j][k];
      if (++c[k] < s[k]) break;
      for (let j = 0; j < at.length; j++) at[j] -= steps[j][k] * s[k];
      c[k] = 0;
    }
  }
}
function each(ts, f, like) {  // f over broadcast tensors
  const s = ts.map(t => t.s).reduce(shapes), n = size(s), out = like === "int" ? I(n) : F(n), [a, b, c = b] = ts.map(t => t.d);
  if (ts.every(t => t.d.length === n)) {
    for (let i = 0; i < n; i++) out[i] = f(a[i], b[i], c[i]);
    return T(s, out);
  }
  const L = s.at(-1), st = [...ts, ts[1]].slice(0, 3).map(t => stepsOf(t.s, s)), [x, y, z] = st.map(t => t.at(-1));
  places(s, st, [0, 0, 0], ([p, q, r], row) => { for (let i = 0, to = row * L; i < L; i++) out[to + i] = f(a[p + i * x], b[q + i * y], c[r + i * z]); });
  return T(s, out);
}
const number = f => (n, a, b) => [each([a, b], f, kind(a) === "int" && kind(b) === "int" ? "int" : "float")];
const truth = f => (n, a, b) => [each([a, b], (x, y) => f(x, y) ? 1 : 0, "int")];
const one = f => (n, a) => { const k = a.d.length, d = F(k); for (let i = 0; i < k; i++) d[i] = f(a.d[i]); return [T(a.s, d)]; };
const even = x => { const r = Math.round(x); return Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : r; };
function pick(t, out, steps, first = 0) {  // the values of t at places that go on by `steps`, as of another order or size
  if (!out.length) return T(out, t.d.slice(first, first + 1));
  const d = room(t, size(out)), L = out.at(-1), by = steps.at(-1);
  if (d.length) places(out, [steps], [first], ([at], row) => { for (let i = 0, to = row * L; i < L; i++) d[to + i] = t.d[at + i * by]; });
  return T(out, d);
}
// Adds to `out`, (m, n) from `po` on, the product of `a`, (m, k) whose rows are `ra` apart and columns `qa`, and `b`, (k, n):
// four rows of each at a time, which is several times as fast as one.
function gemm(out, po, a, pa, ra, qa, b, pb, m, k, n) {
  let r = 0;
  for (; r + 3 < m; r += 4) {
    const o0 = po + r * n, o1 = o0 + n, o2 = o1 + n, o3 = o2 + n;
    let q = 0, p = pa + r * ra, at = pb;
    for (; q + 3 < k; q += 4, p += 4 * qa, at += 4 * n) {
      const p1 = p + ra, p2 = p1 + ra, p3 = p2 + ra, q2 = 2 * qa, q3 = 3 * qa, at1 = at + n, at2 = at1 + n, at3 = at2 + n;
      const e = a[p], f = a[p + qa], g = a[p + q2], h = a[p + q3], e1 = a[p1], f1 = a[p1 + qa], g1 = a[p1 + q2], h1 = a[p1 + q3];
      const e2 = a[p2], f2 = a[p2 + qa], g2 = a[p2 + q2], h2 = a[p2 + q3], e3 = a[p3], f3 = a[p3 + qa], g3 = a[p3 + q2], h3 = a[p3 + q3];
      for (let j = 0; j < n; j++) {
        const x = b[at + j], y = b[at1 + j], z = b[at2 + j], w = b[at3 + j];
        out[o0 + j] += e * x + f * y + g * z + h * w; out[o1 + j] += e1 * x + f1 * y + g1 * z + h1 * w;
        out[o2 + j] += e2 * x + f2 * y + g2 * z + h2 * w; out[o3 + j] += e3 * x + f3 * y + g3 * z + h3 * w;
      }
    }
    for (; q < k; q++, p += qa, at += n) {
      const e = a[p], f = a[p + ra], g = a[p + 2 * ra], h = a[p + 3 * ra];
      for (let j = 0; j < n; j++) { const x = b[at + j]; out[o0 + j] += e * x; out[o1 + j] += f * x; out[o2 + j] += g * x; out[o3 + j] += h * x; }
    }
  }
  for (; r < m; r++) {
    const to = po + r * n;
    let q = 0, p = pa + r * ra, at = pb;
    for (; q + 3 < k; q += 4, p += 4 * qa, at += 4 * n) {
      const e = a[p], f = a[p + qa], g = a[p + 2 * qa], h = a[p + 3 * qa], at1 = at + n, at2 = at1 + n, at3 = at2 + n;
      for (let j = 0; j < n; j++) out[to + j] += e * b[at + j] + f * b[at1 + j] + g * b[at2 + j] + h * b[at3 + j];
    }
    for (; q < k; q++, p += qa, at += n) { const e = a[p]; for (let j = 0; j < n; j++) out[to + j] += e * b[at + j]; }
  }
}
function matmul(a, b) {
  if (a.s.length < 2) { const r = matmul(T([1, ...a.s], a.d), b); return T(r.s.filter((_, i) => i !== r.s.length - (b.s.length > 1 ? 2 : 1)), r.d); }
  if (b.s.length < 2) { const r = matmul(a, T([...b.s, 1], b.d)); return T(r.s.slice(0, -1), r.d); }
  let [m, k] = a.s.slice(-2), [, n] = b.s.slice(-2);
  const lead = shapes(a.s.slice(0, -2), b.s.slice(0, -2)), count = size(lead);
  const sa = stepsOf(a.s.slice(0, -2), lead).map(x => x * m * k), sb = stepsOf(b.s.slice(0, -2), lead).map(x => x * k * n);
  const out = F(count * m * n);
  places([...lead, 1], [sa, sb], [0, 0], ([pa, pb], i) => gemm(out, i * m * n, a.d, pa, k, 1, b.d, pb, m, k, n));
  return T([...lead, m, n], out);
}
const turned = t => t.turned ??= pick(t, [t.s[1], t.s[0]], [1, t.s[1]]);  // which is kept, as it is mostly of weights
let spare = F(0);
function zeros(n) { if (spare.length < n) spare = F(n); return spare.fill(0, 0, n); }
function conv(n, x, w, b, back) {  // of one, two or three axes, as a product of matrices: `cells` is (what a kernel sees, places)
  const a = n.a, less = 5 - x.s.length, lift = s => [...s.slice(0, 2), ...Array(less).fill(1), ...s.slice(2)];
  const three = (v, d) => [...Array(less).fill(d), ...(v ?? Array(3 - less).fill(d))], rank = 3 - less;
  const st = three(a.strides, 1), by = three(a.dilations, 1), p = three(a.pads?.slice(0, rank), 0), ends = three(a.pads?.slice(rank), 0);
  const more = three(a.output_padding, 0), [N, C, ...from] = lift(x.s), [, , ...k] = lift(w.s), g = a.group ?? 1, M = back ? w.s[1] * g : w.s[0];
  const to = from.map((L, i) => back ? (L - 1) * st[i] - p[i] - ends[i] + by[i] * (k[i] - 1) + more[i] + 1
    : Math.floor((L + p[i] + ends[i] - by[i] * (k[i] - 1) - 1) / st[i]) + 1);
  const [big, small] = back ? [to, from] : [from, to], P = size(small), B = size(big), cg = C / g, mg = M / g, seen = (back ? mg : cg) * size(k);
  const out = F(N * M * size(to)), plain = !back && size(k) === 1 && P === B && st.every(v => v === 1);
  if (b) for (let i = 0; i < N * M; i++) out.fill(b.d[i % M], i * size(to), (i + 1) * size(to));
  const first = (i, o) => Math.max(0, Math.ceil((p[i] - o) / st[i])), last = (i, o) => Math.min(small[i], Math.floor((big[i] - 1 - o + p[i]) / st[i]) + 1);
  for (let i = 0; i < N; i++) for (let q = 0; q < g; q++) {
    const px = (i * C + q * cg) * size(from), po = (i * M + q * mg) * size(to);
    if (plain) { gemm(out, po, w.d, q * mg * seen, seen, 1, x.d, px, mg, seen, P); continue; }
    const cells = zeros(seen * P);
    if (back) gemm(cells, 0, w.d, q * cg * seen, 1, seen, x.d, px, seen, cg, P);
    for (let row = 0; row < seen; row++) {
      const kx = row % k[2] * by[2], ky = Math.floor(row / k[2]) % k[1] * by[1], kz = Math.floor(row / k[2] / k[1]) % k[0] * by[0];
      const plane = Math.floor(row / size(k)) * B + (back ? po : px), x0 = first(2, kx), x1 = last(2, kx);
      for (let z = first(0, kz); z < last(0, kz); z++) for (let y = first(1, ky); y < last(1, ky); y++) {
        const line = plane + ((z * st[0] + kz - p[0]) * big[1] + y * st[1] + ky - p[1]) * big[2] + kx - p[2], at = row * P + (z * small[1] + y) * small[2];
        if (back) for (let j = x0; j < x1; j++) out[line + j * st[2]] += cells[at + j]; else for (let j = x0; j < x1; j++) cells[at + j] = x.d[line + j * st[2]];
      }
    }
    if (!back) gemm(out, po, w.d, q * mg * seen, seen, 1, cells, 0, mg, seen, P);
  }
  return T([N, M, ...to.slice(less)], out);
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
const soft = f => (n, a) => { const d = F(a.d.length); along(a, axisOf(n.a.axis ?? -1, a.s.length), (at, st, k) => { let m = -Infinity, t = 0;
  for (let j = 0; j < k; j++) m = Math.max(m, a.d[at + j * st]); for (let j = 0; j < k; j++) t += Math.exp(a.d[at + j * st] - m);
  for (let j = 0; j < k; j++) d[at + j * st] = f(a.d[at + j * st] - m, t); }); return [T(a.s, d)]; };
const pool = (start, add, end) => (n, x) => { const [ky, kx] = n.a.kernel_shape, [sy, sx] = n.a.strides ?? [1, 1], [top, left, down, right] = n.a.pads ?? [0, 0, 0, 0], [N, C, H, W] = x.s;
  const h = Math.floor((H + top + down - ky) / sy) + 1, w = Math.floor((W + left + right - kx) / sx) + 1, d = F(N * C * h * w);
  for (let i = 0; i < d.length; i++) { const y = Math.floor(i / w) % h * sy - top, z = i % w * sx - left, at = Math.floor(i / w / h) * H * W; let v = start, seen = 0;
    for (let Y = Math.max(0, y); Y < Math.min(H, y + ky); Y++) for (let Z = Math.max(0, z); Z < Math.min(W, z + kx); Z++) { v = add(v, x.d[at + Y * W + Z]); seen++; }
    d[i] = end(v, n.a.count_include_pad ? ky * kx : seen); }
  return [T([N, C, h, w], d)]; };
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
  Softplus: one(x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  Neg: (n, a) => [T(a.s, a.d.map(x => -x))], LeakyRelu: (n, a) => { const k = n.a.alpha ?? 0.01; return [T(a.s, a.d.map(x => x < 0 ? k * x : x))]; },
  Clip: (n, a, lo, hi) => { const l = lo ? lo.d[0] : -Infinity, h = hi ? hi.d[0] : Infinity; return [T(a.s, a.d.map(x => Math.min(h, Math.max(l, x))))]; },
  Gelu: (n, a) => [T(a.s, a.d.map(n.a.approximate === "tanh" ? x => 0.5 * x * (1 + Math.tanh(0.7978845608 * (x + 0.044715 * x ** 3))) : x => 0.5 * x * (1 + erf(x / Math.SQRT2))))],
  MatMul: (n, a, b) => [matmul(a, b)],
  Gemm: (n, a, b, c) => { const r = matmul(n.a.transA ? turned(a) : a, n.a.transB ? turned(b) : b), k = n.a.alpha ?? 1, l = n.a.beta ?? 1;
    return [c ? each([r, c], (x, y) => k * x + l * y) : k === 1 ? r : T(r.s, r.d.map(x => k * x))]; },
  Conv: (n, x, w, b) => [conv(n, x, w, b, false)], ConvTranspose: (n, x, w, b) => [conv(n, x, w, b, true)],
  BatchNormalization: (n, x, g, b, m, v) => { const k = size(x.s.slice(2)), C = x.s[1], d = F(x.d.length);
    for (let i = 0; i < x.s[0] * C; i++) { const c = i % C, r = g.d[c] / Math.sqrt(v.d[c] + (n.a.epsilon ?? 1e-5)), t = b.d[c] - m.d[c] * r;
      for (let j = i * k; j < (i + 1) * k; j++) d[j] = x.d[j] * r + t; } return [T(x.s, d)]; },
  InstanceNormalization: (n, x, g, b) => { const k = size(x.s.slice(2)), d = F(x.d.length);
    for (let i = 0; i < x.s[0] * x.s[1]; i++) { const c = i % x.s[1]; scaled(x.d, i * k, 1, k, n.a.epsilon ?? 1e-5, (at, v) => { d[at] = v * g.d[c] + b.d[c]; }); } return [T(x.s, d)]; },
  LayerNormalization: (n, x, g, b) => { const k = size(x.s.slice(axisOf(n.a.axis ?? -1, x.s.length))), d = F(x.d.length);
    for (let i = 0; i < x.d.length; i += k) scaled(x.d, i, 1, k, n.a.epsilon ?? 1e-5, (at, v, j) => { d[at] = v * g.d[j] + (b ? b.d[j] : 0); }); return [T(x.s, d)]; },
  Softmax: soft((x, t) => Math.exp(x) / t), LogSoftmax: soft((x, t) => x - Math.log(t)),
  ReduceMean: reduce(0, (x, y) => x + y, (v, k) => v / k), ReduceSum: reduce(0, (x, y) => x + y, v => v), ReduceMax: reduce(-Infinity, Math.max, v => v),
  ReduceL2: reduce(0, (x, y) => x + y * y, Math.sqrt),
  Identity: (n, a) => [a], Shape: (n, a) => { const s = a.s.slice(n.a.start ?? 0, n.a.end ?? a.s.length); return [T([s.length], I(s.length).map((_, i) => s[i]))]; },
  Cast: (n, a) => n.a.to === 1 ? [T(a.s, Float32Array.from(a.d))] : n.a.to === 9 ? [T(a.s, I(a.d.length).map((_, i) => a.d[i] ? 1 : 0))] : [T(a.s, Float64Array.from(a.d, Math.trunc))],
  Reshape: (n, a, s) => { const r = ints(s).map((x, i) => x === 0 && !n.a.allowzero ? a.s[i] : x), at = r.indexOf(-1);
    if (at >= 0) { r[at] = 1; const rest = size(r); r[at] = rest ? a.d.length / rest : 0; } return [T(r, a.d)]; },
  Flatten: (n, a) => { const k = size(a.s.slice(0, n.a.axis ?? 1)); return [T([k, a.d.length / k], a.d)]; },
  Squeeze: (n, a, x) => { const l = x ? ints(x).map(i => axisOf(i, a.s.length)) : a.s.map((v, i) => v === 1 ? i : -1); return [T(a.s.filter((_, i) => !l.includes(i)), a.d)]; },
  Unsqueeze: (n, a, x) => { const k = a.s.length + x.d.length, s = [...a.s]; for (const i of ints(x).map(i => axisOf(i, k)).sort((p, q) => p - q)) s.splice(i, 0, 1); return [T(s, a.d)]; },
  Transpose: (n, a) => { const p = n.a.perm ?? a.s.map((_, i) => a.s.length - 1 - i), st = strides(a.s); return [pick(a, p.map(i => a.s[i]), p.map(i => st[i]))]; },
  DepthToSpace: (n, a) => { const k = n.a.blocksize, [N, C, h, w] = a.s, c = C / k / k, [s, perm] = n.a.mode === "CRD" ? [[N, c, k, k, h, w], [0, 1, 4, 2, 5, 3]] : [[N, k, k, c, h, w], [0, 3, 4, 1, 5, 2]];
    return [T([N, c, h * k, w * k], OPS.Transpose({a: {perm}}, T(s, a.d))[0].d)]; },
  Resize: (n, x, roi, scales, sizes) => { const half = n.a.coordinate_transformation_mode === "half_pixel", near = n.a.mode === "nearest"; let t = x;
    x.s.forEach((k, axis) => { const r = scales ? scales.d[axis] : sizes.d[axis] / k, L = Math.floor(k * r + 1e-6), inner = size(t.s.slice(axis + 1)), d = F(t.d.length / k * L); if (r === 1) return;
      for (let o = 0; o < size(t.s.slice(0, axis)); o++) for (let j = 0; j < L; j++) { const p = half ? (j + 0.5) / r - 0.5 : j / r + 1e-6, low = Math.floor(p), u = near ? 0 : p - low;
        const to = (o * L + j) * inner, at = (o * k + Math.max(0, low)) * inner, next = (o * k + Math.min(k - 1, low + 1)) * inner;
        for (let i = 0; i < inner; i++) d[to + i] = u ? (1 - u) * t.d[at + i] + u * t.d[next + i] : t.d[at + i]; }
      t = T(t.s.map((v, i) => i === axis ? L : v), d); }); return [t]; },
  MaxPool: pool(-Infinity, Math.max, v => v), AveragePool: pool(0, (v, x) => v + x, (v, k) => v / k),
  TopK: (n, a, count) => { const axis = axisOf(n.a.axis ?? -1, a.s.length), k = Number(count.d[0]), s = a.s.map((v, i) => i === axis ? k : v), d = room(a, size(s)), which = I(size(s)), sign = n.a.largest ?? 1 ? -1 : 1;
    along(a, axis, (at, step, L, to) => { const out = Math.floor(to / step) * k * step + to % step, order = Array.from({length: L}, (_, j) => j).sort((p, q) => sign * (a.d[at + p * step] - a.d[at + q * step]) || p - q);
      for (let j = 0; j < k; j++) { which[out + j * step] = order[j]; d[out + j * step] = a.d[at + order[j] * step]; } }); return [T(s, d), T(s, which)]; },
  ArgMax: (n, a) => { const x = axisOf(n.a.axis ?? 0, a.s.length), keep = n.a.keepdims ?? 1, s = a.s.map((v, i) => i === x ? 1 : v), d = I(size(s));
    along(a, x, (at, step, k, to) => { for (let j = 1; j < k; j++) if (a.d[at + j * step] > a.d[at + d[to] * step]) d[to] = j; }); return [T(keep ? s : s.filter((_, i) => i !== x), d)]; },
  CumSum: (n, a, axis) => { const d = room(a, a.d.length); along(a, axisOf(Number(axis.d[0]), a.s.length), (at, step, k) => { let t = 0; for (let j = 0; j < k; j++) d[at + j * step] = t += a.d[at + j * step]; }); return [T(a.s, d)]; },
  Pad: (n, a, pads, v) => { const r = a.s.length, p = ints(pads), s = a.s.map((k, i) => k + p[i] + p[r + i]), d = room(a, size(s)).fill(v ? Number(v.d[0]) : 0), st = strides(s), L = a.s.at(-1);
    places(a.s, [st], [st.reduce((t, k, i) => t + k * p[i], 0)], ([at], row) => d.set(a.d.subarray(row * L, (row + 1) * L), at)); return [T(s, d)]; },
  Expand: (n, a, s) => { const out = shapes(a.s, ints(s)); return [pick(a, out, stepsOf(a.s, out))]; },
  Concat: (n, ...ts) => { const axis = axisOf(n.a.axis, ts[0].s.length), s = [...ts[0].s]; s[axis] = ts.reduce((r, t) => r + t.s[axis], 0);
    const out = room(ts[0], size(s)), inner = size(s.slice(axis + 1)), outer = size(s.slice(0, axis)); let at = 0;
    for (let o = 0; o < outer; o++) for (const t of ts) { const k = t.s[axis] * inner; out.set(t.d.subarray(o * k, (o + 1) * k), at); at += k; } return [T(s, out)]; },
  Slice: (n, a, from, to, axes, step) => { const s = [...a.s], st = strides(a.s), first = s.map(() => 0), by = s.map(() => 1);
    (axes ? ints(axes) : ints(from).map((_, i) => i)).forEach((x, i) => { const k = axisOf(x, s.length), d = step ? Number(step.d[i]) : 1, L = a.s[k];
      const lim = v => { v = Number(v); if (v < 0) v += L; return Math.min(d > 0 ? L : L - 1, Math.max(d > 0 ? 0 : -1, v)); };
      const b = lim(from.d[i]), e = Number(to.d[i]) < -L ? (d > 0 ? 0 : -1) : lim(to.d[i]); first[k] = b; by[k] = d; s[k] = Math.max(0, Math.ceil((e - b) / d)); });
    return [pick(a, s, st.map((v, k) => v * by[k]), st.reduce((r, v, k) => r + v * first[k], 0))]; },
  Split: (n, a, parts) => { const axis = axisOf(n.a.axis ?? 0, a.s.length), L = a.s[axis], k = n.o.length, l = parts ? ints(parts) : Array.from({length: k}, (_, i) => Math.min(Math.ceil(L / k), L - i * Math.ceil(L / k)));
    let at = 0; return l.map(w => { const r = OPS.Slice({a: {}}, a, T([1], [at]), T([1], [at + w]), T([1], [axis]))[0]; at += w; return r; }); },
  Gather: (n, a, i) => { const x = axisOf(n.a.axis ?? 0, a.s.length), inner = size(a.s.slice(x + 1)), L = a.s[x], outer = size(a.s.slice(0, x)), k = i.d.length;
    const s = [...a.s.slice(0, x), ...i.s, ...a.s.slice(x + 1)], d = room(a, size(s));
    for (let o = 0; o < outer; o++) for (let j = 0; j < k; j++) { const at = (o * L + axisOf(i.d[j], L)) * inner; d.set(a.d.subarray(at, at + inner), (o * k + j) * inner); } return [T(s, d)]; },
  GatherND: (n, a, i) => { const k = i.s.at(-1), st = strides(a.s), inner = size(a.s.slice(k)), count = i.d.length / k, s = [...i.s.slice(0, -1), ...a.s.slice(k)];
    const d = room(a, size(s)); for (let j = 0; j < count; j++) { let at = 0; for (let q = 0; q < k; q++) at += axisOf(i.d[j * k + q], a.s[q]) * st[q];
      d.set(a.d.subarray(at, at + inner), j * inner); } return [T(s, d)]; },
  Range: (n, a, b, c) => { const k = Math.max(0, Math.ceil((b.d[0] - a.d[0]) / c.d[0])); return [T([k], I(k).map((_, i) => a.d[0] + i * c.d[0]))]; },
  ConstantOfShape: (n, s) => { const v = n.a.value ?? T([1], F(1)), k = size(ints(s)); return [T(ints(s), kind(v) === "float" ? F(k).fill(v.d[0]) : I(k).fill(v.d[0]))]; },
};
// A graph is {nodes: [{op, i, o, a}], constants: {name: tensor}, inputs: [name], outputs: [name]}.
function run(graph, given) {
  const known = {...graph.constants, ...given};
  for (const node of graph.nodes) OPS[node.op](node, ...node.i.map(name => name ? known[name] : undefined)).forEach((t, k) => { known[node.o[k]] = t; });
  return Object.fromEntries(graph.outputs.map(name => [name, known[name]]));
}
// Numbers between 0 and 1 from a seed, always the same (mulberry32), and standard normal ones.
const uniform = seed => () => { seed |= 0; seed = seed + 0x6D2B79F5 | 0; let t = Math.imul(seed ^ seed >>> 15, 1 | seed); t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t; return ((t ^ t >>> 14) >>> 0) / 4294967296; };
const normal = draw => () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
function read(graph, buffer) {  // as JSON has it, with its weights in a buffer
  const tensor = t => T(t.shape, t.values ? Float64Array.from(t.values) : new Float32Array(buffer, t.at, size(t.shape)));
  const all = (found, f) => Object.fromEntries(Object.entries(found).map(([name, v]) => [name, f(v)]));
  return {...graph, constants: all(graph.constants, tensor), nodes: graph.nodes.map(n => ({...n, a: all(n.a, v => v && v.shape ? tensor(v) : v)}))};
}
