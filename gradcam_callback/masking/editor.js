// One photograph: the tools that change its mask.

import { MaskCanvas } from "./canvas.js";
import * as server from "./server.js";

const byId = (id) => document.getElementById(id);
const LEAST_BOX = 5; // in pixels of the page; anything smaller is a click by mistake
const HELP = {
  box: "Drag a box around the object.\nCtrl + drag adds another object.\nRight button, or Shift: cut away what is in the box.",
  brush: "Left button adds.\nRight button, or Shift, or X removes.\nWheel or [ ] changes the size.",
};

export class Editor {
  // `run` runs a task and shows its errors.
  constructor(run, say) {
    this.run = run;
    this.say = say;
    this.tool = "box";
    this.removes = false;
    this.drag = null;
    this.canvas = new MaskCanvas(byId("canvas"), byId("stage"));
    byId("box").addEventListener("click", () => this.choose("box"));
    byId("brush").addEventListener("click", () => this.choose("brush"));
    byId("removing").addEventListener("click", () => this.toggleRemoving());
    byId("clear").addEventListener("click", () => this.clear());
    byId("size").addEventListener("input", () => this.sized());
    this.listen(byId("canvas"));
    this.choose("box");
    this.sized();
  }

  listen(canvas) {
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("pointerleave", () => {
      this.canvas.cursor = null;
      this.canvas.draw();
    });
    const wheel = (event) => {
      if (this.tool !== "brush") return;
      event.preventDefault();
      this.resize(event.deltaY < 0 ? 1 : -1);
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
  }

  async open(index, full, photograph, mask) {
    this.index = index;
    this.drag = null;
    this.canvas.open(photograph, full);
    if (mask) this.canvas.put(mask);
    this.describe();
  }

  describe() {
    const share = this.canvas.isEmpty ? "nothing" : `${(100 * this.canvas.share).toFixed(0)} %`;
    byId("canvas").setAttribute("aria-label", `Photograph; the mask covers ${share} of it`);
  }

  choose(tool) {
    this.tool = tool;
    byId("box").setAttribute("aria-pressed", tool === "box");
    byId("brush").setAttribute("aria-pressed", tool === "brush");
    byId("canvas").className = tool;
    byId("sizes").hidden = tool !== "brush";
    byId("help").textContent = HELP[tool];
    this.canvas.cursor = null;
    this.canvas.draw();
  }

  toggleRemoving() {
    this.removes = !this.removes;
    byId("removing").setAttribute("aria-pressed", this.removes);
    this.say(this.removes ? "Box and brush remove now. X: add again." : "Box and brush add again.");
  }

  get radius() {
    return (Number(byId("size").value) / 2) * this.canvas.scale;
  }

  resize(by) {
    const size = byId("size");
    size.value = Math.round(Number(size.value) * 1.2 ** by + by);
    this.sized();
  }

  sized() {
    byId("size-said").textContent = byId("size").value;
    if (this.canvas.cursor) {
      this.canvas.cursor.radius = this.radius;
      this.canvas.draw();
    }
  }

  clear() {
    if (this.canvas.isEmpty) return;
    this.canvas.keep();
    this.canvas.clear();
    this.describe();
  }

  // Undo the last change of this mask. False if there is none.
  undo() {
    if (!this.canvas.edited) return false;
    this.canvas.back();
    this.describe();
    return true;
  }

  isRemoving(event) {
    return this.removes || event.shiftKey || event.button === 2 || (event.buttons & 2) !== 0;
  }

  down(event) {
    if (this.drag || !this.canvas.photograph || (event.button !== 0 && event.button !== 2)) return;
    event.preventDefault();
    byId("stage").focus({ preventScroll: true });
    byId("canvas").setPointerCapture(event.pointerId);
    const at = this.canvas.at(event);
    const adds = event.ctrlKey || event.metaKey;
    this.drag = { from: at, last: at, removes: this.isRemoving(event), adds, tool: this.tool };
    if (this.tool === "brush") {
      this.canvas.keep();
      this.canvas.stroke(at, at, this.radius, this.drag.removes);
    }
  }

  move(event) {
    if (!this.canvas.photograph) return;
    const at = this.canvas.at(event);
    if (this.tool === "brush") {
      this.canvas.cursor = { at, radius: this.radius, removes: this.drag?.removes ?? this.isRemoving(event) };
    }
    if (this.drag?.tool === "brush") {
      this.canvas.stroke(this.drag.last, at, this.radius, this.drag.removes);
      this.drag.last = at;
    } else if (this.drag) {
      this.canvas.rubber = this.boxTo(at);
    }
    this.canvas.draw();
  }

  up(event) {
    const drag = this.drag;
    if (!drag) return;
    this.cancel();
    if (drag.tool === "brush") {
      this.canvas.changed();
      this.describe();
      return;
    }
    const box = this.boxTo(this.canvas.at(event), drag.from);
    const least = LEAST_BOX * this.canvas.scale;
    if (box[2] - box[0] < least || box[3] - box[1] < least) {
      this.say("Drag a box around the object, from corner to corner.");
    } else if (drag.removes) {
      this.canvas.keep();
      this.canvas.clear(box);
      this.describe();
    } else {
      this.run(() => this.markBox(box, drag.adds));
    }
  }

  cancel() {
    this.drag = null;
    this.canvas.rubber = null;
    this.canvas.draw();
  }

  // The box from where the drag began, inside the photograph: left, top, right, bottom.
  boxTo([x, y], [fromX, fromY] = this.drag.from) {
    const { width, height } = this.canvas.mask;
    const inside = (value, most) => Math.min(most, Math.max(0, value));
    const [xs, ys] = [[inside(x, width), inside(fromX, width)], [inside(y, height), inside(fromY, height)]];
    return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  }

  async markBox(box, adds) {
    this.say("Looking at the box …");
    const factor = this.canvas.full[0] / this.canvas.mask.width;
    const found = await server.box(this.index, box.map((side) => side * factor));
    this.canvas.keep();
    this.canvas.put(found, adds);
    this.describe();
    this.say("");
  }
}
