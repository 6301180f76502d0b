// Text to ids and back, as the tokenizer of the model has them.
const LETTERS = (() => { const found = {}, rest = []; for (let b = 0; b < 256; b++) (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173 ? found[b] = String.fromCharCode(b) : rest.push(b);
  rest.forEach((b, i) => { found[b] = String.fromCharCode(256 + i); }); return found; })();
const WORD = /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
function encode(t, text) {
  if (!t.bytes) return Array.from(text, c => t.vocabulary[c] ?? t.unk);
  const ranks = t.ranks ??= new Map(t.merges.map((m, i) => [m.join("\0"), i])), ids = [];
  for (const word of t.merges.length ? text.match(WORD) ?? [] : [text]) {
    const parts = Array.from(new TextEncoder().encode(word), b => LETTERS[b]);
    for (;;) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) { const r = ranks.get(parts[i] + "\0" + parts[i + 1]); if (r < best) { best = r; at = i; } }
      if (at < 0) break;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
    ids.push(...parts.map(p => t.vocabulary[p]));
  }
  return ids;
}
function decode(t, ids) {
  t.spelled ??= Object.fromEntries(Object.entries(t.vocabulary).map(([word, id]) => [id, word]));
  t.byte ??= Object.fromEntries(Object.entries(LETTERS).map(([b, c]) => [c, +b]));
  const words = ids.filter(id => id > 3).map(id => t.spelled[id] ?? "").join("");
  return t.bytes ? new TextDecoder().decode(Uint8Array.from(Array.from(words), c => t.byte[c])) : words;
}
