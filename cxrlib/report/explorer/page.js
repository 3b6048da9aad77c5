// The explorer's controls: every control changes one state, and one drawing a frame shows what it gives.

const RING = 0.06; // its radius, as a share of the film

// What is to be seen in a state: at most two lines on a phone, lest the film moves away from the finger
function hintOf(state, said) {
  const a = said.naive >= 0.5, b = said.lungs >= 0.5;
  const { letter, collimation, box, exposure } = state, others = collimation || box || exposure;
  if (state.pneumonia) {
    if (a && letter) return `A says “ill”, B ${b ? "too" : "misses it"}. Does A still, without the letter?`;
    if (a) return `A real pneumonia: network A sees it, and B ${b ? "too" : "misses it"}.`;
    return `A real pneumonia: network A misses it, and B ${b ? "sees it" : "too"}.`;
  }
  if (b && collimation) return "The collimator cuts off lung, and network B says “ill”.";
  if (b && box) return "The box hides part of the lungs, and network B says “ill”.";
  if (b && letter) return "On the lungs, network B takes the letter for a shadow.";
  if (b) return "Healthy, and with this exposure network B says “ill”.";
  if (a && letter && !others) return "Only the letter is new, and network A says “ill”.";
  if (a) return `Healthy, and network A says “ill”${letter ? "" : " without a letter"}.`;
  if (letter) return "Both are right here. Try the letter in the ring.";
  return others ? "Both are right. Drag the letter into the ring." : "This chest is healthy. Drag the letter into the ring.";
}

function markup(id, assets) {
  const slider = (name, label, low, high, step, left, right) => `
    <div class="cxr-row"><label for="${id}-${name}">${label}</label>
    <input type="range" id="${id}-${name}" min="${low}" max="${high}" step="${step}" value="0">
    <span class="cxr-ends" aria-hidden="true"><span>${left}</span><span>${right}</span></span></div>`;
  const box = (name, label) =>
    `<label class="cxr-check" for="${id}-${name}"><input type="checkbox" id="${id}-${name}"> ${label}</label>`;
  const network = (name, letter, how) => `
    <div class="cxr-network" data-network="${name}">
      <canvas width="${assets.size}" height="${assets.size}" role="img" aria-label="What network ${letter} is shown"></canvas>
      <div><p id="${id}-${name}"><strong>Network ${letter}</strong> ${how}</p>
        <div class="cxr-bar" role="meter" aria-labelledby="${id}-${name}" aria-valuemin="0" aria-valuemax="100">
          <div class="cxr-fill"></div><div class="cxr-threshold"></div></div>
        <p class="cxr-word"><strong></strong> <span></span></p></div>
    </div>`;
  const people = assets.patients.map((one, i) => `<option value="${i}">${i + 1}: ${one.who}</option>`).join("");
  return `
  <p class="cxr-hint" id="${id}-hint"></p>
  <div class="cxr-main">
    <div class="cxr-left">
      <div class="cxr-film"><canvas width="${assets.size}" height="${assets.size}" role="img"
          aria-label="The film: a synthetic chest radiograph"></canvas>
        <span class="cxr-ring"></span>
        <button type="button" class="cxr-box" hidden aria-label="Black box. Arrow keys move it, with Shift they change its size."></button>
        <button type="button" class="cxr-letter" aria-describedby="${id}-hint"></button></div>
      <p class="cxr-tray">The lead letter: drag it, or press Enter and use the arrow keys.</p>
    </div>
    <div class="cxr-right">
      <p class="cxr-truth">The truth: <strong></strong>. <small>A bar says how sure a network is of “ill”.</small></p>
      ${network("naive", "A", "learned from chests on which a letter went with the illness")}
      ${network("lungs", "B", "learned from the same chests, shown the lungs alone")}
      <p class="cxr-key" hidden>Orange speaks for “ill”, blue against it: how far the answer moves when a patch is
        painted over. <span></span></p>
      <fieldset><legend>Change the film</legend>
        ${box("letter", "Lead letter on the film")}
        ${slider("pneumonia", "Pneumonia", 0, assets.steps, 1, "none", "a lobe")}
        ${slider("exposure", "Exposure", -1, 1, 0.05, "darker", "brighter")}
        ${slider("collimation", "Collimator", 0, 0.2, 0.005, "open", "closed")}
        ${box("box", "Black box: drag it over the film")}
        ${box("where", "Show where each network looks")}
        <div class="cxr-row cxr-choice"><label for="${id}-patient">Chest</label>
        <select id="${id}-patient">${people}</select> <button type="button" class="cxr-reset">Start again</button></div>
      </fieldset>
    </div>
  </div>
  <p class="cxr-note">${assets.note}</p>
  <p class="cxr-say" role="status" aria-live="polite"></p>`;
}

function mount(place, assets) {
  window.cxrExplorers = (window.cxrExplorers ?? 0) + 1; // their ids must differ, whichever script made them
  const id = `cxr-explorer-${window.cxrExplorers}`, size = assets.size;
  place.classList.add("cxr-explorer");
  place.innerHTML = markup(id, assets);
  const one = (selector) => place.querySelector(selector), input = (name) => one(`#${id}-${name}`);
  const stage = one(".cxr-film"), letter = one(".cxr-letter"), box = one(".cxr-box");
  const start = () => ({ patient: 0, letter: null, pneumonia: 0, exposure: 0, collimation: 0, box: null });
  let state = start(), said = null, waiting = 0, speaking = 0, looking = null;

  function change(what) {
    state = { ...state, ...what };
    if (!waiting) waiting = requestAnimationFrame(draw);
  }

  function draw() {
    waiting = 0;
    said = answers(assets, state);
    paint(stage.querySelector("canvas"), said.image, size);
    one(".cxr-truth strong").textContent = state.pneumonia ? "ill" : "healthy";
    one(".cxr-hint").textContent = hintOf(state, said);
    for (const name of ["naive", "lungs"]) tell(one(`[data-network=${name}]`), said[name], state.pneumonia > 0);
    placeHandles();
    clearTimeout(speaking);
    speaking = setTimeout(speak, 700);
    for (const name of ["naive", "lungs"]) paint(one(`[data-network=${name}] canvas`), said.seen[name], size);
    look();
  }

  function tell(row, probability, ill) {
    const call = probability >= 0.5, percent = Math.round(100 * probability), bar = row.querySelector(".cxr-bar");
    row.querySelector(".cxr-fill").style.width = `${100 * probability}%`;
    row.classList.toggle("cxr-ill", call);
    row.classList.toggle("cxr-wrong", call !== ill);
    row.querySelector(".cxr-word strong").textContent = call ? "ill" : "healthy";
    row.querySelector(".cxr-word span").textContent =
      `(${percent}%) ${call === ill ? "✓ right" : "✗ wrong"}`;
    bar.setAttribute("aria-valuenow", percent);
    bar.setAttribute("aria-valuetext", `${call ? "ill" : "healthy"}, ${percent}%`);
  }

  function speak() {
    const call = (p) => `${p >= 0.5 ? "ill" : "healthy"}, ${Math.round(100 * p)}%`;
    one(".cxr-say").textContent = `Network A says ${call(said.naive)}. Network B says ${call(said.lungs)}. `
      + `The truth: ${state.pneumonia ? "ill" : "healthy"}.`;
  }

  function placeHandles() {
    const { name: glyph, home: [x, y] } = assets.patients[state.patient].letter, ring = one(".cxr-ring");
    Object.assign(ring.style, { left: `${100 * x}%`, top: `${100 * y}%` });
    letter.textContent = glyph;
    letter.setAttribute("aria-label", `Lead letter ${glyph}, ${state.letter ? "on the film" : "not on the film"}. `
      + "Enter puts it on or takes it off, arrow keys move it.");
    letter.classList.toggle("cxr-on", state.letter !== null);
    letter.style.left = state.letter ? `${100 * state.letter[0]}%` : "";
    letter.style.top = state.letter ? `${100 * state.letter[1]}%` : "";
    box.hidden = !state.box;
    if (state.box) {
      const [left, top, right, bottom] = state.box.map((edge) => (100 * edge) / size);
      Object.assign(box.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    }
    stage.classList.toggle("cxr-boxing", state.box !== null);
    input("letter").checked = state.letter !== null;
    input("box").checked = state.box !== null;
    for (const name of ["pneumonia", "exposure", "collimation", "patient"]) input(name).value = state[name];
  }

  // ---- where they look: patches painted over one by one, a few a frame

  function look() {
    clearTimeout(looking);
    const on = input("where").checked;
    one(".cxr-key").hidden = !on;
    if (!on) return;
    const maps = ["naive", "lungs"].map((name) => occlusion(assets, name, said.seen[name]));
    one(".cxr-key span").textContent = "Looking …";
    const work = () => {
      const until = performance.now() + 12;
      let busy = true;
      while (busy && performance.now() < until) busy = maps.map((map) => map.next()).some(Boolean);
      if (busy) looking = setTimeout(work);
      else {
        maps.forEach((map) => overlay(one(`[data-network=${map.name}] canvas`), map, size));
        one(".cxr-key span").textContent = "";
      }
    };
    looking = setTimeout(work, 150);
  }

  // ---- the letter and the box, by pointer and by key

  const at = (event) => {
    const film = stage.getBoundingClientRect();
    return [(event.clientX - film.left) / film.width, (event.clientY - film.top) / film.height];
  };
  const drag = (element, begin, drop = () => {}) => element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const move = begin(event, at(event));
    if (!move) return;
    element.setPointerCapture(event.pointerId);
    const moved = (next) => move(at(next));
    const end = (last) => {
      if (last.type === "pointerup") drop();
      element.removeEventListener("pointermove", moved);
      element.classList.remove("cxr-dragged");
    };
    element.addEventListener("pointermove", moved);
    element.addEventListener("pointerup", end, { once: true });
    element.addEventListener("pointercancel", end, { once: true });
  });

  let dragged = false;
  drag(letter, (_, [x, y]) => {
    const from = [x, y], grip = state.letter ? [state.letter[0] - x, state.letter[1] - y] : [0, 0];
    dragged = false;
    return ([u, v]) => {
      if (!dragged && Math.hypot(u - from[0], v - from[1]) < 0.015) return;
      dragged = true;
      const place = [u + grip[0], v + grip[1]];
      const inside = place.every((value) => value > -0.02 && value < 1.02);
      change({ letter: inside ? place.map((value) => clamp(value, 0.02, 0.98)) : null });
      letter.classList.toggle("cxr-dragged", !inside);
      letter.style.setProperty("--x", `${100 * place[0]}%`);
      letter.style.setProperty("--y", `${100 * place[1]}%`);
    };
  }, () => { // into the ring
    const [x, y] = home();
    if (dragged && state.letter && Math.hypot(state.letter[0] - x, state.letter[1] - y) < RING) change({ letter: [x, y] });
  });
  const home = () => assets.patients[state.patient].letter.home;
  letter.addEventListener("click", () => {
    if (!dragged) change({ letter: state.letter ? null : home() });
    dragged = false;
  });
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  letter.addEventListener("keydown", (event) => {
    if (!arrows[event.key]) return;
    event.preventDefault();
    const step = event.shiftKey ? 0.1 : 0.02, from = state.letter;
    change({ letter: from ? from.map((v, i) => clamp(v + step * arrows[event.key][i], 0.02, 0.98)) : home() });
  });

  const pixel = (value) => clamp(Math.round(value * size), 0, size);
  const span = (a, b) => [Math.min(a, b), Math.max(a, b)];
  const moveBox = ([left, top, right, bottom], dx, dy) => {
    const x = clamp(dx, -left, size - right), y = clamp(dy, -top, size - bottom);
    return [left + x, top + y, right + x, bottom + y];
  };
  drag(stage, (event, [x, y]) => {
    if (!state.box || letter.contains(event.target) || box.contains(event.target)) return null;
    return ([u, v]) => {
      const [left, right] = span(pixel(x), pixel(u)), [top, bottom] = span(pixel(y), pixel(v));
      if (right > left && bottom > top) change({ box: [left, top, right, bottom] });
    };
  });
  drag(box, (_, [x, y]) => {
    const from = state.box;
    return ([u, v]) => change({ box: moveBox(from, Math.round((u - x) * size), Math.round((v - y) * size)) });
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") {
      input("box").focus();
      change({ box: null });
    }
    if (!arrows[event.key]) return;
    event.preventDefault();
    const [dx, dy] = arrows[event.key].map((value) => 4 * value), [left, top, right, bottom] = state.box;
    const grown = [left, top, clamp(right + dx, left + 4, size), clamp(bottom + dy, top + 4, size)];
    change({ box: event.shiftKey ? grown : moveBox(state.box, dx, dy) });
  });

  // ---- the other controls

  for (const name of ["pneumonia", "exposure", "collimation"])
    input(name).addEventListener("input", () => change({ [name]: Number(input(name).value) }));
  input("letter").addEventListener("change", () => change({ letter: input("letter").checked ? home() : null }));
  input("box").addEventListener("change", () => {
    const [top, left, height, width] = assets.patients[state.patient].lesion.box;
    const middle = [left + width / 2, top + height / 2].map(Math.round), reach = Math.round(size / 7);
    const whole = [middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach];
    change({ box: input("box").checked ? whole.map((edge) => clamp(edge, 0, size)) : null });
  });
  input("where").addEventListener("change", () => change({}));
  input("patient").addEventListener("change", () => change({ ...start(), patient: Number(input("patient").value) }));
  one(".cxr-reset").addEventListener("click", () => {
    input("where").checked = false;
    change(start());
  });
  draw();
  return { state: () => state, answers: (what) => answers(assets, { ...start(), ...what }) };
}

function paint(canvas, grey, size) {
  const context = canvas.getContext("2d", { willReadFrequently: true }), picture = context.createImageData(size, size);
  grey.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
  context.putImageData(picture, 0, 0);
}

// The answer's log odds with square patches of an input painted in their mean grey, against those without
function occlusion(assets, name, seen) {
  const patch = assets.size / 8, step = patch / 2, cells = (assets.size - patch) / step + 1;
  const before = logit(assets, name, seen), moved = new Float32Array(cells * cells);
  let cell = 0;
  return {
    name, cells, patch, step, moved,
    next() {
      if (cell === moved.length) return false;
      const left = (cell % cells) * step, top = Math.floor(cell / cells) * step, size = assets.size;
      const painted = Uint8Array.from(seen);
      let sum = 0;
      for (let y = top; y < top + patch; y++) for (let x = left; x < left + patch; x++) sum += seen[y * size + x];
      for (let y = top; y < top + patch; y++) painted.fill(Math.round(sum / patch ** 2), y * size + left, y * size + left + patch);
      moved[cell++] = before - logit(assets, name, painted);
      return cell < moved.length;
    },
  };
}

const FULL = 3; // log odds that get the full colour

function overlay(canvas, { cells, patch, step, moved }, size) {
  const context = canvas.getContext("2d", { willReadFrequently: true }), picture = context.getImageData(0, 0, size, size);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) { // between the patches' middles
      const r = clamp((y - patch / 2) / step, 0, cells - 1), c = clamp((x - patch / 2) / step, 0, cells - 1);
      const value = bilinearAt(moved, cells, r, c), share = 0.75 * Math.min(Math.abs(value) / FULL, 1);
      const colour = value > 0 ? [255, 120, 0] : [40, 130, 255], at = 4 * (y * size + x);
      for (let k = 0; k < 3; k++) picture.data[at + k] += share * (colour[k] - picture.data[at + k]);
    }
  context.putImageData(picture, 0, 0);
}

function bilinearAt(values, cells, r, c) {
  const top = Math.floor(r), left = Math.floor(c), v = r - top, u = c - left;
  const lower = Math.min(top + 1, cells - 1), right = Math.min(left + 1, cells - 1);
  const along = (row) => values[row * cells + left] * (1 - u) + values[row * cells + right] * u;
  return along(top) * (1 - v) + along(lower) * v;
}
