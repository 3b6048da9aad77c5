// What the page computes: the phantom's film, what each network is shown of it, and its answer.
// Every step is the package's own (cxrlib.phantom, .images.markers, .images.regions, .training.models), and
// tests/browser/test_explorer.py holds the scores to torch's.
"use strict";

const SUBSAMPLES = 4; // of a pixel, each way, for the letter
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function unpack(index, buffer) {
  const kinds = { f4: Float32Array, u2: Uint16Array, u1: Uint8Array, i1: Int8Array };
  const arrays = {};
  for (const [name, [kind, length, offset]] of Object.entries(index.arrays))
    arrays[name] = new kinds[kind](buffer, offset, length);
  return { ...index, arrays };
}

// ---- the film: cxrlib.phantom.phantom._film and what lies on it

function film(assets, state) {
  const patient = assets.patients[state.patient], size = assets.size;
  const image = developed(assets, patient, state);
  if (state.collimation > 0) collimate(image, size, patient.collimation, state.collimation);
  if (state.letter) stamp(image, size, patient.letter, state.letter);
  const grey = new Uint8Array(image.length);
  for (let i = 0; i < grey.length; i++) grey[i] = Math.floor(clamp(image[i], 0, 255) + 0.5);
  if (state.box) {
    const [left, top, right, bottom] = state.box;
    for (let y = top; y < bottom; y++) grey.fill(0, y * size + left, y * size + right);
  }
  return grey;
}

function developed(assets, patient, state) {
  const { size, arrays } = assets, z = Float32Array.from(arrays[patient.film]);
  if (state.pneumonia) {
    const [top, left, height, width] = patient.lesion.box, added = arrays[patient.lesion.layers];
    const first = (state.pneumonia - 1) * height * width, unit = patient.lesion.unit[state.pneumonia - 1];
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        z[(top + y) * size + left + x] += added[first + y * width + x] * unit;
  }
  const [dark, bright] = patient.greys, [more, most] = assets.exposure;
  const newDark = dark + more * state.exposure, newBright = bright + most * state.exposure;
  const gain = (newBright - newDark) / (bright - dark);
  const image = new Float32Array(z.length), curve = filmCurve(patient.curve);
  for (let i = 0; i < z.length; i++) {
    const value = Math.fround((z[i] - dark) * gain + newDark);
    image[i] = curve[Math.trunc(clamp((value + 8) * 256, 0, curve.length - 1))];
  }
  return image;
}

function filmCurve([black, white]) {
  return Float32Array.from({ length: 4096 }, (_, i) => {
    const grey = 255 / (1 + Math.exp(-1.15 * (i / 256 - 8)));
    return clamp(((grey - black) * white) / (246 - black), 0, 255);
  });
}

function collimate(image, size, { tilt, edge, level }, margin) {
  const half = 0.5 - margin;
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const across = (x + 0.5) / size - 0.5, down = (y + 0.5) / size - 0.5;
      const inside = half - Math.max(Math.abs(across + tilt * down), Math.abs(down - tilt * across));
      const open = clamp(inside / edge + 0.5, 0, 1), i = y * size + x;
      image[i] = (image[i] - level) * open + level;
    }
}

function stamp(image, size, { bitmap, height, angle, plate, ink }, [cx, cy]) {
  const rows = bitmap.length, columns = bitmap[0].length, cell = height / rows;
  const reach = 0.5 * cell * Math.hypot(rows, columns), cos = Math.cos(angle), sin = Math.sin(angle);
  const from = (middle) => clamp(Math.trunc((middle - reach) * size), 0, size);
  const to = (middle) => clamp(Math.trunc((middle + reach) * size) + 2, 0, size);
  for (let y = from(cy); y < to(cy); y++)
    for (let x = from(cx); x < to(cx); x++) {
      let covered = 0, inked = 0;
      for (let k = 0; k < SUBSAMPLES ** 2; k++) {
        const v = ((y + (Math.floor(k / SUBSAMPLES) + 0.5) / SUBSAMPLES) / size - cy) / cell;
        const u = ((x + ((k % SUBSAMPLES) + 0.5) / SUBSAMPLES) / size - cx) / cell;
        const i = Math.floor(v * cos - u * sin + rows / 2), j = Math.floor(u * cos + v * sin + columns / 2);
        if (i < 0 || i >= rows || j < 0 || j >= columns) continue;
        covered += 1;
        inked += bitmap[i][j];
      }
      const at = y * size + x, share = 1 / SUBSAMPLES ** 2;
      if (plate !== null) image[at] += covered * share * (plate - 0.35 * image[at]) * 0.8;
      image[at] += inked * share * (ink - image[at]);
    }
}

// ---- the remedy: letters painted out, cropped to the lungs, the rest black

function lungsAlone(assets, state, image) {
  const { size, arrays } = assets, patient = assets.patients[state.patient];
  const [top, left, side] = patient.window, bits = arrays[patient.lungs];
  const clean = inpaint(image, findMarkers(image, size), size), part = new Uint8Array(side * side);
  for (let y = 0; y < side; y++)
    part.set(clean.subarray((top + y) * size + left, (top + y) * size + left + side), y * side);
  const seen = resize(part, side, size);
  for (let i = 0; i < seen.length; i++) if (!(bits[i >> 3] & (128 >> (i & 7)))) seen[i] = 0;
  return seen;
}

// cxrlib.images.markers.find_markers, with its numbers
function findMarkers(image, size) {
  const found = new Uint8Array(size * size);
  const some = [];
  for (let y = 0; y < size; y += 2) for (let x = 0; x < size; x += 2) some.push(image[y * size + x]);
  some.sort((a, b) => a - b);
  const percentile = (q) => {
    const at = (q / 100) * (some.length - 1), low = Math.floor(at), high = Math.min(low + 1, some.length - 1);
    return some[low] + (some[high] - some[low]) * (at - low);
  };
  const low = percentile(1), contrast = percentile(99) - low;
  if (contrast < 8) return found;
  const hat = strokes(image, size, low + 0.7 * contrast);
  const scale = contrast * clamp(Math.sqrt(256 / size), 1, 1.5), gap = Math.max(1, Math.round(0.01 * size));
  const ink = hat.map((value) => value > 0.13 * scale);
  const labels = connected(dilate(ink, size, size, gap), size);
  for (let i = 0; i < labels.length; i++) if (!ink[i]) labels[i] = 0;
  for (const [number, box] of boxesOf(labels, size, (i) => hat[i] > 0.24 * scale && outer(i, size)))
    if (isMarker(image, hat, labels, size, number, box, low + 0.6 * contrast, scale))
      addMarker(found, labels, size, number, box, gap + 1);
  return found;
}

function strokes(image, size, bright) {
  const reach = Math.max(3, Math.round((0.027 * size) / 2)), inverse = (one) => one.map((value) => 255 - value);
  const largest = (one) => largestNear(largestNear(one, size, reach, 1, size), size, reach, size, 1);
  const opened = largest(inverse(largest(inverse(image)))), closed = inverse(largest(inverse(largest(image))));
  return Int16Array.from(image, (value, i) =>
    Math.max(value - opened[i], closed[i] >= bright ? closed[i] - value : 0));
}

// along rows or columns; beyond the edge lies what is inside, mirrored
function largestNear(image, size, reach, step, other) {
  const out = new Uint8Array(image.length);
  for (let line = 0; line < size; line++)
    for (let k = 0; k < size; k++) {
      const start = line * other, last = start + Math.min(k + reach, size - 1) * step;
      let best = 0;
      for (let i = start + Math.max(k - reach, 0) * step; i <= last; i += step) if (image[i] > best) best = image[i];
      out[start + k * step] = best;
    }
  return out;
}

function dilate(mask, height, width, times = 1) {
  for (; times > 0; times--) {
    const grown = new Uint8Array(mask.length);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        if (mask[y * width + x])
          for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++)
            for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) grown[v * width + u] = 1;
    mask = grown;
  }
  return mask;
}

function flood(free, height, width, starts, mark) { // along rows and columns
  const stack = [...starts];
  for (const i of stack) mark(i);
  while (stack.length) {
    const i = stack.pop(), x = i % width, y = (i - x) / width;
    for (const j of [x > 0 && i - 1, x < width - 1 && i + 1, y > 0 && i - width, y < height - 1 && i + width])
      if (j !== false && free(j)) {
        mark(j);
        stack.push(j);
      }
  }
}

function connected(mask, size) {
  const labels = new Int32Array(mask.length);
  let number = 0;
  for (let i = 0; i < mask.length; i++)
    if (mask[i] && !labels[i]) {
      number += 1;
      flood((j) => mask[j] && !labels[j], size, size, [i], (j) => (labels[j] = number));
    }
  return labels;
}

function boxesOf(labels, size, isSeed) { // of the groups that hold a seed: top, left, bottom, right
  const boxes = new Map(), seeds = new Set();
  for (let i = 0; i < labels.length; i++) {
    if (!labels[i]) continue;
    const x = i % size, y = (i - x) / size, box = boxes.get(labels[i]) ?? [y, x, y + 1, x + 1];
    boxes.set(labels[i], [Math.min(box[0], y), Math.min(box[1], x), Math.max(box[2], y + 1), Math.max(box[3], x + 1)]);
    if (isSeed(i)) seeds.add(labels[i]);
  }
  return [...boxes].filter(([number]) => seeds.has(number));
}

function outer(i, size) {
  const x = i % size, y = (i - x) / size, side = Math.round(0.2 * size);
  const top = Math.round(0.22 * size), bottom = size - Math.round(0.1 * size);
  return y < top || y >= bottom || x < side || x >= size - side;
}

function isMarker(image, hat, labels, size, number, [top, left, bottom, right], bright, scale) {
  const rows = bottom - top, columns = right - left, greys = [], hats = [], steps = [];
  for (let y = top; y < bottom; y++)
    for (let x = left; x < right; x++) {
      const i = y * size + x;
      if (labels[i] !== number) continue;
      greys.push(image[i]);
      hats.push(hat[i]);
      const near = [y > top && i - size, y < bottom - 1 && i + size, x > left && i - 1, x < right - 1 && i + 1];
      steps.push(Math.max(0, ...near.map((j) => (j === false ? 0 : Math.abs(image[i] - image[j])))));
    }
  const area = greys.length, best = Math.max(3, Math.floor(area / 4));
  if (area < Math.max(3, 1.2e-4 * size * size) || area < 0.18 * rows * columns) return false;
  if (Math.max(rows, columns) > 0.4 * size || Math.min(rows, columns) > 0.16 * size) return false;
  const reaches = (values, least) => values.sort((a, b) => a - b)[values.length - best] >= least;
  return reaches(greys, bright) && reaches(hats, 0.24 * scale) && reaches(steps, 0.17 * scale);
}

function addMarker(found, labels, size, number, box, margin) {
  const top = Math.max(box[0] - margin, 0), left = Math.max(box[1] - margin, 0);
  const height = Math.min(box[2] + margin, size) - top, width = Math.min(box[3] + margin, size) - left;
  const mask = new Uint8Array(height * width);
  for (let i = 0; i < mask.length; i++)
    mask[i] = labels[(top + Math.floor(i / width)) * size + left + (i % width)] === number ? 1 : 0;
  const grown = dilate(mask, height, width), outside = new Uint8Array(mask.length), edge = [];
  for (let i = 0; i < mask.length; i++) {
    const x = i % width, y = (i - x) / width;
    if (!grown[i] && (!x || !y || x === width - 1 || y === height - 1)) edge.push(i);
  }
  flood((j) => !grown[j] && !outside[j], height, width, edge, (j) => (outside[j] = 1));
  for (let i = 0; i < mask.length; i++)
    if (!outside[i]) found[(top + Math.floor(i / width)) * size + left + (i % width)] = 1;
}

function inpaint(image, mask, size) {
  if (!mask.some(Boolean) || mask.every(Boolean)) return image;
  const values = Float32Array.from(image, (value, i) => (mask[i] ? 0 : value));
  const filled = pushPull(values, Float32Array.from(mask, (there) => 1 - there), size, size);
  return image.map((value, i) => (mask[i] ? Math.trunc(clamp(filled[i] + 0.5, 0, 255)) : value));
}

function pushPull(values, weights, height, width) {
  if (Math.max(height, width) === 1) return [values[0] / Math.max(weights[0], 1e-6)];
  const rows = Math.ceil(height / 2), columns = Math.ceil(width / 2);
  const total = new Float32Array(rows * columns), mean = new Float32Array(rows * columns);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const i = y * width + x, j = (y >> 1) * columns + (x >> 1);
      total[j] += weights[i];
      mean[j] += values[i] * weights[i];
    }
  for (let j = 0; j < mean.length; j++) mean[j] = total[j] > 0 ? mean[j] / Math.max(total[j], 1e-6) : 0;
  const coarse = pushPull(mean, total.map((weight) => Math.min(weight, 1)), rows, columns);
  return values.map((value, i) => {
    const x = i % width, y = (i - x) / width, weight = weights[i];
    return weight === 1 ? value : value * weight + (1 - weight) * bilinear(coarse, rows, columns, y, x);
  });
}

function bilinear(coarse, rows, columns, y, x) {
  const r = clamp((y - 0.5) / 2, 0, rows - 1), c = clamp((x - 0.5) / 2, 0, columns - 1);
  const top = Math.floor(r), left = Math.floor(c), v = r - top, u = c - left;
  const lower = Math.min(top + 1, rows - 1), right = Math.min(left + 1, columns - 1);
  const along = (row) => coarse[row * columns + left] * (1 - u) + coarse[row * columns + right] * u;
  return along(top) * (1 - v) + along(lower) * v;
}

// Pillow's bilinear resize of 8-bit greys: along the rows, then along the columns, in fixed point
function resize(image, side, size) {
  if (side === size) return image;
  const scale = side / size, support = Math.max(scale, 1), taps = [];
  for (let x = 0; x < size; x++) {
    const centre = (x + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), side);
    const weights = [];
    for (let k = first; k < last; k++) weights.push(Math.max(1 - Math.abs((k - centre + 0.5) / support), 0));
    const sum = weights.reduce((a, b) => a + b, 0);
    taps.push([first, weights.map((weight) => Math.trunc((weight / sum) * 4194304 + 0.5))]);
  }
  const along = new Uint8Array(side * size), out = new Uint8Array(size * size);
  for (let y = 0; y < side; y++)
    taps.forEach(([first, weights], x) => {
      let sum = 2097152;
      for (let k = 0; k < weights.length; k++) sum += image[y * side + first + k] * weights[k];
      along[y * size + x] = clamp(sum >> 22, 0, 255);
    });
  taps.forEach(([first, weights], y) => {
    for (let x = 0; x < size; x++) {
      let sum = 2097152;
      for (let k = 0; k < weights.length; k++) sum += along[(first + k) * size + x] * weights[k];
      out[y * size + x] = clamp(sum >> 22, 0, 255);
    }
  });
  return out;
}

// ---- the networks: cxrlib.training.models.LeNet

function logit(assets, name, seen) {
  const { mean, std } = assets.networks[name], of = (layer) => assets.arrays[`${name}.${layer}`];
  let maps = { data: Float32Array.from(seen, (grey) => (grey - mean) / std), side: assets.size };
  for (const layer of [0, 3]) maps = pooled(convolved(maps, of(`${layer}.weight`), of(`${layer}.bias`)));
  const first = dense(maps.data, of("7.weight"), of("7.bias"), of("7.scale"));
  return dense(dense(first, of("10.weight"), of("10.bias")), of("13.weight"), of("13.bias"), null, false)[0];
}

function convolved({ data, side }, weights, bias) { // 5 × 5, without padding
  const inputs = data.length / side ** 2, out = side - 4, result = new Float32Array(bias.length * out * out);
  for (let o = 0; o < bias.length; o++) {
    const sums = result.subarray(o * out * out, (o + 1) * out * out).fill(bias[o]);
    for (let c = 0; c < inputs; c++)
      for (let row = 0; row < 5; row++) {
        const w = ((o * inputs + c) * 5 + row) * 5;
        const a = weights[w], b = weights[w + 1], d = weights[w + 2], e = weights[w + 3], f = weights[w + 4];
        for (let y = 0, at = 0; y < out; y++) {
          let p = (c * side + y + row) * side;
          for (let x = 0; x < out; x++, at++, p++)
            sums[at] += a * data[p] + b * data[p + 1] + d * data[p + 2] + e * data[p + 3] + f * data[p + 4];
        }
      }
  }
  return { data: result, side: out };
}

function pooled({ data, side }) { // the largest of 2 × 2, and nothing below zero
  const out = side >> 1, channels = data.length / side ** 2, result = new Float32Array(channels * out * out);
  for (let c = 0, at = 0; c < channels; c++)
    for (let y = 0; y < out; y++)
      for (let x = 0; x < out; x++, at++) {
        const p = (c * side + 2 * y) * side + 2 * x;
        result[at] = Math.max(0, data[p], data[p + 1], data[p + side], data[p + side + 1]);
      }
  return { data: result, side: out };
}

function dense(input, weights, bias, scale = null, rectified = true) {
  return Float32Array.from(bias, (start, o) => {
    let sum = 0;
    for (let i = 0, w = o * input.length; i < input.length; i++, w++) sum += weights[w] * input[i];
    const value = start + sum * (scale ? scale[o] : 1);
    return rectified ? Math.max(value, 0) : value;
  });
}

// Both networks' inputs (grey 0–255) and probabilities of "ill" in a state of the explorer
function answers(assets, state) {
  const image = film(assets, state), seen = { naive: image, lungs: lungsAlone(assets, state, image) };
  const probability = (name) => 1 / (1 + Math.exp(-logit(assets, name, seen[name])));
  return { image, seen, naive: probability("naive"), lungs: probability("lungs") };
}
