"use strict";
// The scan in three planes. Voxel axes run right, anterior, superior; `packed_volume.py` says how
// the slabs are packed, `viewer.py` what the page tells.
(() => {
  const viewer = document.querySelector(".viewer");
  const told = JSON.parse(document.getElementById("scan").textContent);
  const [width, height, depth] = told.shape;
  const strides = [1, width, width * height];
  const hu = new Int16Array(width * height * depth).fill(told.lowest_hu);
  const planes = [...viewer.querySelectorAll(".view")].map(figure => ({
    figure,
    axis: +figure.dataset.axis,
    across: +figure.dataset.across,
    down: +figure.dataset.down,
    canvas: figure.querySelector("canvas"),
    layer: figure.querySelector(".layer"),
  }));
  let voxel = told.start.slice();
  let grey = {...told.windows[0]};
  let selected = null;
  let main = planes[0];
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // -- unpacking ---------------------------------------------------------------------------

  // Corner of a slab (z, y, x) that each level halves.
  const extentsOf = shape => [...Array(told.levels).keys()].map(
    level => shape.map(size => (size + (1 << level) - 1) >> level));

  function bandsOf(shape) {
    const bands = [];
    extentsOf(shape).forEach((extent, level) => {
      for (let high = 1; high < 8; high++) {
        const isHigh = [high & 4, high & 2, high & 1];
        bands.push({
          level,
          from: extent.map((size, axis) => isHigh[axis] ? (size + 1) >> 1 : 0),
          to: extent.map((size, axis) => isHigh[axis] ? size : (size + 1) >> 1),
        });
      }
    });
    const rest = shape.map(size => (size + (1 << told.levels) - 1) >> told.levels);
    return [...bands, {level: told.levels, from: [0, 0, 0], to: rest}];
  }

  async function inflate(text) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function readBands(content, shape, slab) {
    const bands = bandsOf(shape);
    const sizes = bands.map(({from, to}) => to.reduce((all, end, axis) => all * (end - from[axis]), 1));
    let start = bands.length;
    let rest = sizes.reduce((at, size, i) => at + Math.ceil(size * content[i] / 8), start);
    let large = content.length;
    bands.forEach(({level, from, to}, i) => {
      const bits = content[i], top = (1 << bits) - 1, step = Math.max(1, told.step >> level);
      let bit = start * 8;
      for (let z = from[0]; z < to[0]; z++) {
        for (let y = from[1]; y < to[1]; y++) {
          const row = (z * shape[1] + y) * shape[2];
          for (let x = from[2]; x < to[2]; x++, bit += bits) {
            let code = (content[bit >> 3] >> (bit & 7)) & top;
            if (code === top) {
              let more = content[rest++];
              if (more === 255) {
                large -= 2;
                more = content[large] | (content[large + 1] << 8);
              }
              code += more;
            }
            slab[row + x] = ((code >> 1) ^ -(code & 1)) * step;
          }
        }
      }
      start += Math.ceil(sizes[i] * bits / 8);
    });
  }

  // Undoes one step of the 5/3 wavelet along a line.
  function join(slab, base, size, stride, line) {
    const half = (size + 1) >> 1, last = size - 1;
    for (let i = 0, at = base; i < size; i++, at += stride) line[i] = slab[at];
    let even = line[0] - ((2 * line[half] + 2) >> 2);
    slab[base] = even;
    for (let i = 0, at = base; i < size - half; i++, at += 2 * stride) {
      const odd = line[half + i];
      let next = even;
      if (i + 1 < half) {
        const after = line[Math.min(half + i + 1, last)];
        next = line[i + 1] - ((odd + after + 2) >> 2);
        slab[at + 2 * stride] = next;
      }
      slab[at + stride] = odd + ((even + next) >> 1);
      even = next;
    }
  }

  async function unpackSlab(number) {
    const first = number * told.slab_depth;
    const shape = [Math.min(told.slab_depth, depth - first), height, width];
    const slab = new Int32Array(shape[0] * strides[2]);
    readBands(await inflate(document.getElementById(`slab-${number}`).textContent), shape, slab);
    const line = new Int32Array(Math.max(...shape)), steps = [strides[2], strides[1], 1];
    for (const extent of extentsOf(shape).reverse()) {
      for (const axis of [0, 1, 2]) {
        if (extent[axis] < 2) continue;
        const [one, other] = [0, 1, 2].filter(each => each !== axis);
        for (let i = 0; i < extent[one]; i++) {
          for (let j = 0; j < extent[other]; j++) {
            join(slab, i * steps[one] + j * steps[other], extent[axis], steps[axis], line);
          }
        }
      }
    }
    const target = first * strides[2];
    for (let i = 0; i < slab.length; i++) {
      hu[target + i] = clamp(slab[i], told.lowest_hu, told.highest_hu);
    }
  }

  // Slabs nearest to the slice that is looked at come first.
  async function load() {
    const waiting = new Set(Array(Math.ceil(depth / told.slab_depth)).keys());
    const all = waiting.size, progress = viewer.querySelector(".loading");
    while (waiting.size) {
      const here = Math.floor(voxel[2] / told.slab_depth);
      const next = [...waiting].reduce((a, b) => Math.abs(b - here) < Math.abs(a - here) ? b : a);
      await unpackSlab(next);
      waiting.delete(next);
      progress.textContent = `Loading ${Math.round(100 * (1 - waiting.size / all))} %`;
      draw();
      await new Promise(resume => setTimeout(resume)); // lets the browser show it
    }
    progress.textContent = "";
    viewer.dataset.loaded = "";
  }

  // -- drawing -----------------------------------------------------------------------------

  let waitsForFrame = false;
  function draw() {
    if (waitsForFrame) return;
    waitsForFrame = true;
    requestAnimationFrame(() => {
      waitsForFrame = false;
      const shades = shadesOf(grey);
      planes.forEach(plane => drawPlane(plane, shades));
      tell();
    });
  }

  function shadesOf({center_hu, width_hu}) {
    const shades = new Uint32Array(told.highest_hu - told.lowest_hu + 1);
    const black = center_hu - width_hu / 2;
    for (let i = 0; i < shades.length; i++) {
      const shade = clamp(Math.round((told.lowest_hu + i - black) * 255 / width_hu), 0, 255);
      shades[i] = 0xff000000 | (shade << 16) | (shade << 8) | shade;
    }
    return shades;
  }

  // The first column and row hold the highest index: right or anterior, and anterior or superior.
  function drawPlane(plane, shades) {
    const {across, down, axis, image, pixels} = plane;
    const columns = told.shape[across], rows = told.shape[down], stride = strides[across];
    const lowest = told.lowest_hu;
    for (let row = 0, pixel = 0; row < rows; row++) {
      let at = voxel[axis] * strides[axis] + (rows - 1 - row) * strides[down] + (columns - 1) * stride;
      for (let column = 0; column < columns; column++, at -= stride) {
        pixels[pixel++] = shades[hu[at] - lowest];
      }
    }
    plane.canvas.getContext("2d").putImageData(image, 0, 0);
    plane.layer.replaceChildren(
      ...told.places.filter(place => place.boxed && passes(place, axis)).map(place => boxOn(plane, place)),
      lineOn(plane, across), lineOn(plane, down));
  }

  const passes = (place, axis) =>
    place.low[axis] <= voxel[axis] && voxel[axis] <= place.high[axis];
  const holds = place => [0, 1, 2].every(axis => passes(place, axis));
  // Per cent from the left or top at which an index's far edge lies.
  const percent = (axis, edge) => 100 * (1 - (edge + 0.5) / told.shape[axis]);

  function boxOn({across, down}, place) {
    const box = document.createElement("span");
    box.className = place === selected ? "box selected" : "box";
    box.dataset.sentence = place.sentence;
    const left = percent(across, place.high[across]), top = percent(down, place.high[down]);
    box.style.left = `${left}%`;
    box.style.top = `${top}%`;
    box.style.width = `${percent(across, place.low[across]) - left}%`;
    box.style.height = `${percent(down, place.low[down]) - top}%`;
    return box;
  }

  function lineOn(plane, axis) {
    const line = document.createElement("span");
    line.className = axis === plane.across ? "line upright" : "line level";
    line.style[axis === plane.across ? "left" : "top"] = `${percent(axis, voxel[axis])}%`;
    return line;
  }

  const millimetres = at => told.affine.slice(0, 3).map(
    row => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
  const signed = (value, digits) => value.toFixed(digits).replace("-", "−");

  function tell() {
    const mm = millimetres(voxel);
    const value = hu[voxel[0] + voxel[1] * strides[1] + voxel[2] * strides[2]];
    const [right, anterior, superior] = mm.map(each => signed(each, 1));
    viewer.dataset.voxel = voxel.join(" ");
    viewer.dataset.mm = mm.map(each => each.toFixed(3)).join(" ");
    viewer.querySelector(".position").textContent =
      `x ${right} · y ${anterior} · z ${superior} mm · ${signed(value, 0)} HU`;
    viewer.querySelector(".grey").textContent =
      `${grey.name} ${signed(grey.center_hu, 0)}/${signed(grey.width_hu, 0)} HU`;
    viewer.querySelectorAll("[data-window]").forEach(button => {
      button.setAttribute("aria-pressed", told.windows[button.dataset.window].name === grey.name);
    });
    for (const {canvas, figure, axis} of planes) {
      const number = `slice ${voxel[axis]} of ${told.shape[axis]}`;
      canvas.setAttribute("aria-valuenow", voxel[axis]);
      canvas.setAttribute("aria-valuetext", `${number}, ${signed(mm[axis], 1)} mm`);
      figure.querySelector(".number").textContent = `${number} · ${"xyz"[axis]} ${signed(mm[axis], 1)} mm`;
    }
    listSentences();
  }

  function listSentences() {
    const here = told.places.filter(holds);
    const list = viewer.querySelector(".here ol");
    const shown = here.map(place => place.sentence).join(" ");
    if (list.dataset.shown === shown) return;
    list.dataset.shown = shown;
    list.replaceChildren(...here.map(place => {
      const item = document.createElement("li"), button = document.createElement("button");
      item.value = place.sentence;
      button.type = "button";
      button.dataset.place = told.places.indexOf(place);
      button.textContent = place.text;
      item.append(button);
      return item;
    }));
    viewer.querySelector(".here p").textContent = here.length
      ? "Sentences that rest on this place" : "No sentence rests on this place.";
    document.querySelectorAll(".sentences li").forEach(item => {
      item.classList.toggle("here", here.some(place => item.id === `sentence-${place.sentence}`));
    });
  }

  // -- moving ------------------------------------------------------------------------------

  function move(axis, index) {
    voxel[axis] = clamp(Math.round(index), 0, told.shape[axis] - 1);
    draw();
  }

  function show(name) {
    grey = {...told.windows.find(window => window.name === name)};
    draw();
  }

  function select(place, slice = place.slice) {
    selected = place;
    voxel = [0, 1, 2].map(axis => place.boxed
      ? clamp(Math.round((place.low[axis] + place.high[axis]) / 2), 0, told.shape[axis] - 1)
      : voxel[axis]);
    move(2, slice);
    show(place.window);
    markSelected();
    bringIntoView();
  }

  function markSelected() {
    document.querySelectorAll(".sentence").forEach(button => {
      button.setAttribute("aria-pressed", told.places[button.dataset.place] === selected);
    });
  }

  function setMain(plane) {
    main = plane;
    planes.forEach(each => {
      each.figure.classList.toggle("main", each === main);
      each.figure.querySelector(".name").setAttribute("aria-pressed", each === main);
    });
  }

  // -- enlarging ---------------------------------------------------------------------------

  const dialog = document.querySelector(".enlarged");
  const home = viewer.parentElement;
  let opener = null;

  function enlarge() {
    opener = document.activeElement;
    dialog.append(viewer);
    dialog.showModal();
    viewer.querySelector(".enlarge").textContent = "Close (Esc)";
    main.canvas.focus();
  }

  dialog.addEventListener("close", () => {
    home.append(viewer);
    viewer.querySelector(".enlarge").textContent = "Enlarge";
    opener.focus({preventScroll: true});
  });

  // Where the text stands above the viewer, as on a phone, the viewer comes to the text.
  function bringIntoView() {
    if (dialog.open) return;
    const {top, bottom} = main.canvas.getBoundingClientRect();
    const middle = (top + bottom) / 2;
    if (middle < 0 || middle > window.innerHeight) enlarge();
  }

  // -- input -------------------------------------------------------------------------------

  const NOTCH = 50; // pixels of a wheel's notch, at least; a touchpad sends less at a time
  const MOVED = 4; // pixels that make a click a drag

  for (const plane of planes) {
    const {canvas, across, down, axis, figure} = plane;
    const spans = [told.shape[across] * told.spacing_mm[across], told.shape[down] * told.spacing_mm[down]];
    canvas.width = told.shape[across];
    canvas.height = told.shape[down];
    canvas.setAttribute("aria-valuemax", told.shape[axis] - 1);
    figure.style.setProperty("--ratio", spans[0] / spans[1]);
    figure.querySelector(".bar").style.width = `${100 * told.bar_mm / spans[0]}%`;
    plane.image = new ImageData(canvas.width, canvas.height);
    plane.pixels = new Uint32Array(plane.image.data.buffer);
    listen(plane);
  }

  function listen(plane) {
    const {canvas, across, down, axis, figure} = plane;
    let wheel = 0, pressed = null;
    canvas.addEventListener("wheel", event => {
      if (event.ctrlKey) return; // the browser's zoom
      event.preventDefault();
      wheel += clamp(event.deltaMode ? event.deltaY * NOTCH : event.deltaY, -NOTCH, NOTCH);
      if (Math.abs(wheel) < NOTCH) return;
      move(axis, voxel[axis] - Math.sign(wheel));
      wheel = 0;
    }, {passive: false});
    canvas.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      pressed = {x: event.clientX, y: event.clientY, grey, index: voxel[axis], dragged: false};
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      if (!pressed) return;
      const right = event.clientX - pressed.x, below = event.clientY - pressed.y;
      pressed.dragged ||= Math.hypot(right, below) > MOVED;
      if (!pressed.dragged) return;
      if (event.pointerType === "touch") {
        const perSlice = clamp(canvas.clientHeight / told.shape[axis], 2, 12);
        move(axis, pressed.index - below / perSlice);
      } else {
        const {center_hu, width_hu} = pressed.grey;
        grey = {name: "own", center_hu: center_hu + 2 * below, width_hu: Math.max(1, width_hu + 4 * right)};
        draw();
      }
    });
    canvas.addEventListener("pointerup", event => {
      if (pressed && !pressed.dragged) {
        const edge = canvas.getBoundingClientRect();
        const column = Math.floor((event.clientX - edge.left) / edge.width * canvas.width);
        const row = Math.floor((event.clientY - edge.top) / edge.height * canvas.height);
        move(across, canvas.width - 1 - column);
        move(down, canvas.height - 1 - row);
      }
      pressed = null;
    });
    canvas.addEventListener("pointercancel", () => { pressed = null; });
    figure.querySelector(".name").addEventListener("click", () => setMain(plane));
  }

  const STEPS = {
    ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10,
    Home: -Infinity, End: Infinity,
  };

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // whoever speaks to the browser may turn off keys of one letter (WCAG 2.1.4)
    const number = viewer.querySelector(".keys").checked ? "1234".indexOf(event.key) : -1;
    if (event.key.length === 1 && number >= 0) show(told.windows[number].name);
    if (event.key === "Escape" && !dialog.open) {
      selected = null;
      markSelected();
      draw();
    }
    const step = STEPS[event.key];
    if (step === undefined || !event.target.closest(".viewer, .sentence, .thumbnail")) return;
    event.preventDefault();
    const {axis} = planes.find(({canvas}) => canvas === event.target) ?? main;
    move(axis, voxel[axis] + step);
  });

  document.addEventListener("click", event => {
    const button = event.target.closest("button, a[href^='#']");
    if (!button) return;
    const {place, slice, window: number} = button.dataset;
    if (button.matches("a")) { // no entry in the browser's history
      event.preventDefault();
      const target = document.getElementById(button.hash.slice(1));
      target.scrollIntoView({block: "center"});
      const sentence = target.querySelector(".sentence");
      (sentence ?? target).focus({preventScroll: true});
      sentence?.click();
    }
    if (place !== undefined) select(told.places[place], slice === undefined ? undefined : +slice);
    else if (slice !== undefined) {
      move(2, +slice);
      bringIntoView();
    }
    if (number !== undefined) show(told.windows[number].name);
    if (button.matches(".enlarge")) dialog.open ? dialog.close() : enlarge();
  });

  setMain(main);
  document.body.classList.add("live");
  load();
})();
