// The page: what is chosen, and everything that follows from it.
import { fill, h, isolated, named } from "./dom.js";
import { Log, headingOf, keyOf } from "./data.js";
import { change, drawColours } from "./heat.js";
import { plot } from "./plots.js";
import { Card, Detail } from "./images.js";
import { interventionsOf, wordsOf } from "./interventions.js";
import { masksOf } from "./masks.js";

// Seconds between two looks for new entries.
const REFRESH = 5;
// Seconds that an epoch is shown while the page plays.
const PLAY = 0.7;
// With more runs than this, only the first ones are shown until somebody chooses.
const SHOWN_AT_FIRST = 2;
const WRONG_ONLY = "only images that are answered wrongly";
const SCALINGS = { map: "maximum of each map", run: "maximum over the run" };
// More verdicts than this, of runs that are not shown, and more names to choose from, are folded.
const MANY = 6;
// The share of the height of a window that the bar may cover.
const MOST_OF_WINDOW = 0.4;
// The share of an even map in the outer tenth of the image, where `border_mass` measures it.
const EVEN_BORDER = 1 - 0.8 ** 2;

export class Focus {
  #root;
  #source;
  #logs = [];
  // The runs as they were listed last.
  #listed = "";
  #shown = new Set();
  #known = new Set();
  #layer = null;
  // The places of the epoch slider: epochs, or steps if an epoch has several entries.
  #places = [];
  #place = 0;
  #follows = true;
  // The opacity of the hottest colour, as in the panels.
  #strength = 0.75;
  // Null until somebody chooses: then the style of the run decides.
  #scaling = null;
  #class = "";
  #wrongOnly = false;
  #order = "given";
  #allLayers = false;
  #allObjects = new Set();
  // The verdicts as they are shown, by the keys of the runs. What is unfolded stays unfolded.
  #verdicts = new Map();
  // The boxes that choose the runs, by the keys of the runs.
  #boxes = new Map();
  // What has gone wrong in the last reading of the runs, and in the last drawing.
  #problems = { reading: "", drawing: "" };
  #cards = [];
  #cardsKey = "";
  #version = 0;
  #player = null;

  constructor(root, source) {
    this.#root = root;
    this.#source = source;
  }

  /** Build the page, and look for new entries from then on. */
  async begin() {
    this.#build();
    document.addEventListener("keydown", (event) => this.#onKey(event));
    await this.#refresh();
    if (this.#source.isLive) this.#wait();
  }

  #build() {
    this.alert = h("div", { role: "alert" });
    this.verdicts = h("div", {}, h("p", { className: "faint" }, "Reading the runs …"));
    this.others = h("details", { className: "others" });
    this.controls = h("div", { className: "controls", role: "toolbar", "aria-label": "what is shown" });
    this.images = h("div", { className: "cards" });
    this.colours = h("div");
    this.thinned = h("p", { className: "faint" });
    this.noImages = h("p", { className: "faint" });
    this.exchanged = h("h2", { id: "interventions" });
    this.interventions = h("div");
    this.masks = h("section", { id: "masks", "aria-label": "automatic masks", hidden: true });
    this.plots = h("div");
    const allLayers = h("input", { type: "checkbox", onchange: () => { this.#allLayers = allLayers.checked; this.#draw(); } });
    this.detail = new Detail(() => {});
    this.#buildControls();
    this.#root.append(
      h(
        "main",
        {},
        this.alert,
        h("section", { "aria-label": "verdicts" }, this.verdicts, this.others),
        this.controls,
        h("h2", { id: "images" }, "Where it looks"),
        this.thinned,
        this.colours,
        this.images,
        this.noImages,
        this.exchanged,
        this.interventions,
        this.masks,
        h("h2", { id: "plots" }, "Over the training"),
        h("p", {}, h("label", {}, allLayers, " a line for every layer")),
        this.plots,
        h("p", { className: "faint" }, "A map shows where evidence for a class lies, not what the network sees there. Keys: ← → epoch, ↑ ↓ layer, space plays, Esc closes what is open."),
      ),
      this.detail.element,
    );
  }

  #buildControls() {
    const control = (text, element, className = "") => h("label", { className }, text, element);
    this.runs = h("fieldset", { "aria-label": "runs" });
    this.chosen = h("summary", {});
    this.chooser = h("details", { className: "more runs", hidden: true }, this.chosen, h("div", {}));
    this.layer = h("select", { onchange: () => this.#choose({ layer: this.layer.value }) });
    this.slider = h("input", { type: "range", min: 0, step: 1, oninput: () => this.#goTo(Number(this.slider.value)) });
    this.at = h("output");
    this.play = h("button", { type: "button", onclick: () => this.#togglePlay(), "aria-pressed": "false", title: "Play the epochs (space)" }, "▶ Play");
    this.follow = h("button", { type: "button", onclick: () => this.#goTo(this.#places.length - 1), "aria-pressed": "true", title: "Show the newest epoch, and each new one" }, "Newest");
    this.strength = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: this.#strength, oninput: () => this.#choose({ strength: Number(this.strength.value) }) });
    this.scaling = select(SCALINGS, (value) => this.#choose({ scaling: value || null }));
    this.classes = select({ "": "all classes" }, (value) => this.#choose({ class: value }));
    this.wrongOnly = h("input", { type: "checkbox", onchange: () => this.#choose({ wrongOnly: this.wrongOnly.checked }) });
    this.order = select({ given: "as given", changed: "changed most since the first epoch" }, (value) => this.#choose({ order: value }));
    const rest = [
      control("Class", this.classes),
      h("label", {}, this.wrongOnly, WRONG_ONLY),
      control("Order", this.order),
      control("Overlay", this.strength),
      control("Hottest colour", this.scaling),
    ];
    this.summary = h("summary", {});
    this.more = h("details", { className: "more" }, this.summary, h("div", {}, ...rest));
    this.controls.append(
      this.runs,
      this.chooser,
      control("Layer", this.layer),
      control("Epoch", this.slider, "epoch"),
      this.at,
      this.play,
      this.follow,
      this.more,
    );
    document.addEventListener("click", (event) => {
      for (const each of [this.more, this.chooser]) if (!each.contains(event.target)) each.open = false;
    });
    // Whatever is scrolled to stands below the bar. A bar that would cover much of a small window scrolls away.
    const fit = () => {
      const height = this.controls.offsetHeight;
      const stays = height <= MOST_OF_WINDOW * window.innerHeight;
      this.controls.classList.toggle("stays", stays);
      document.documentElement.style.scrollPaddingTop = `${stays ? height + 10 : 10}px`;
    };
    new ResizeObserver(fit).observe(this.controls);
    window.addEventListener("resize", fit);
  }

  /** Take over new runs and entries, and draw them. */
  async #refresh() {
    try {
      const runs = await this.#source.list();
      const logs = await Promise.all(runs.map((run) => this.#logOf(run)));
      // The newest runs, which may still be in training. A report knows no times, so there it is the first ones.
      const unknown = logs.filter((log) => !this.#known.has(log.key)).sort((a, b) => b.began - a.began);
      for (const { key } of unknown) {
        if (logs.filter((log) => this.#shown.has(log.key)).length < SHOWN_AT_FIRST) this.#shown.add(key);
        this.#known.add(key);
      }
      this.#logs = logs;
      const listed = JSON.stringify(runs);
      const isNew = listed !== this.#listed;
      this.#listed = listed;
      let problem = "";
      const grew = await this.#readShown().catch((error) => {
        problem = error.message;
        return true;
      });
      if (isNew || grew) await this.#update();
      this.#complain(problem);
    } catch (error) {
      this.#complain(error.message);
    }
  }

  /** Return the log of a run as it is listed. A run that was started anew in its folder, or resumed, gets a new one. */
  async #logOf(run) {
    const log = this.#logs.find(({ key }) => key === keyOf(run));
    if (log?.began === run.began) {
      log.run = run;
      return log;
    }
    const another = new Log(run, this.#source);
    // Read before it takes the place of the other, so that the page is not empty in between.
    if (log && this.#shown.has(log.key)) await another.refresh();
    return another;
  }

  /** Read what is new of the shown runs. Return true if anything is. */
  async #readShown() {
    const readings = this.#shownLogs(false).filter((log) => log.isBehind).map((log) => log.refresh());
    // A run that cannot be read does not keep the others from being shown.
    const found = await Promise.allSettled(readings);
    const failed = found.find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
    return found.some(({ value }) => value);
  }

  #wait() {
    setTimeout(async () => {
      if (document.visibilityState === "visible") await this.#refresh();
      this.#wait();
    }, 1000 * REFRESH);
  }

  /** Show what has gone wrong, until the next reading or drawing goes well. */
  #complain(text, of = "reading") {
    // Whoever listens to the page is not told again and again.
    if (this.#problems[of] === text) return;
    this.#problems[of] = text;
    const said = Object.values(this.#problems).filter(Boolean);
    this.alert.replaceChildren(...said.map((each) => h("p", { className: "alert" }, each)));
  }

  #shownLogs(read = true) {
    return this.#logs.filter((log) => this.#shown.has(log.key) && (!read || log.entries.length));
  }

  /** Change what is chosen, and draw. */
  async #choose(chosen) {
    if ("layer" in chosen) this.#layer = chosen.layer;
    if ("strength" in chosen) this.#strength = chosen.strength;
    if ("scaling" in chosen) this.#scaling = chosen.scaling;
    if ("class" in chosen) this.#class = chosen.class;
    if ("wrongOnly" in chosen) this.#wrongOnly = chosen.wrongOnly;
    if ("order" in chosen) this.#order = chosen.order;
    await this.#draw();
  }

  #goTo(place) {
    this.#place = Math.min(Math.max(place, 0), this.#places.length - 1);
    this.#follows = this.#place === this.#places.length - 1;
    return this.#draw();
  }

  #togglePlay() {
    if (this.#player) {
      clearTimeout(this.#player);
      this.#player = null;
    } else {
      if (this.#place === this.#places.length - 1) this.#place = -1;
      const next = async () => {
        const started = performance.now();
        await this.#goTo(this.#place + 1);
        const isLast = this.#place === this.#places.length - 1;
        const rest = Math.max(0, 1000 * PLAY - (performance.now() - started));
        if (this.#player) this.#player = isLast ? null : setTimeout(next, rest);
        this.#showPlaying();
      };
      this.#player = setTimeout(next, 0);
    }
    this.#showPlaying();
  }

  #showPlaying() {
    this.play.textContent = this.#player ? "❚❚ Pause" : "▶ Play";
    this.play.setAttribute("aria-pressed", String(Boolean(this.#player)));
  }

  #onKey(event) {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return this.#closeMenus();
    if (target.matches("select, input:not([type=checkbox])")) return;
    // What the keyboard has chosen does what it says.
    if (event.key === " " && target.matches("button, input, summary")) return;
    const layers = [...this.layer.options].map((option) => option.value);
    const layer = layers.indexOf(this.#layer);
    const actions = {
      ArrowLeft: () => this.#goTo(this.#place - 1),
      ArrowRight: () => this.#goTo(this.#place + 1),
      ArrowUp: () => layers[layer - 1] && this.#choose({ layer: layers[layer - 1] }),
      ArrowDown: () => layers[layer + 1] && this.#choose({ layer: layers[layer + 1] }),
      " ": () => this.#togglePlay(),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }

  #closeMenus() {
    // An open image takes the key for itself.
    if (this.detail.element.open) return;
    for (const menu of [this.more, this.chooser].filter((each) => each.open)) {
      if (menu.contains(document.activeElement)) menu.firstElementChild.focus();
      menu.open = false;
    }
  }

  /** Follow the runs: their names, layers, classes and epochs; then draw. */
  async #update() {
    fill(this.runs, this.#logs.map((log) => this.#boxOf(log)));
    const count = this.#logs.length;
    this.runs.hidden = count < 2;
    this.chooser.hidden = count <= MANY;
    this.chosen.textContent = `Runs: ${this.#shownLogs(false).length} of ${count}`;
    // Elements keep their state only as long as they are not moved.
    const place = count <= MANY ? this.controls : this.chooser.lastChild;
    if (this.runs.parentElement !== place) place.prepend(this.runs);
    const logs = this.#shownLogs();
    const layers = [...new Set(logs.flatMap((log) => log.start.layers))];
    this.#fillScalings(logs);
    if (!layers.includes(this.#layer)) this.#layer = layers.at(-1) ?? null;
    fillLayers(this.layer, layers, this.#layer);
    const classes = [...new Set(logs.flatMap((log) => log.start.labels ?? []))].sort();
    if (!classes.includes(this.#class)) this.#class = "";
    choose(this.classes, [["", "all classes"], ...classes.map((each) => [each, each])], this.#class);
    this.#updatePlaces(logs);
    await this.#draw();
    // The layers that are not shown yet, so that the next choice is quick.
    for (const log of logs) for (const layer of log.start.layers) await log.prefetch(layer).catch(() => null);
  }

  /** Return the box of a run. It is made once, so that the keyboard stays at it. */
  #boxOf(log) {
    if (!this.#boxes.has(log.key)) {
      const box = h("input", { type: "checkbox", onchange: () => this.#show(log, box.checked) });
      this.#boxes.set(log.key, h("label", {}, box, named(log.name)));
    }
    const label = this.#boxes.get(log.key);
    label.firstChild.checked = this.#shown.has(log.key);
    return label;
  }

  #fillScalings(logs) {
    const own = new Set(logs.map((log) => log.start.scaling));
    const choices = own.size > 1 ? { "": "as each run says", ...SCALINGS } : SCALINGS;
    choose(this.scaling, Object.entries(choices), this.#scaling ?? (own.size > 1 ? "" : ([...own][0] ?? "map")));
  }

  #scalingOf(log) {
    return this.#scaling ?? log.start.scaling;
  }

  #updatePlaces(logs) {
    const chosen = this.#places[this.#place];
    const byEpoch = logs.every((log) => new Set(log.history.map(({ epoch }) => epoch)).size === log.history.length);
    this.placeOf = byEpoch ? ({ epoch }) => epoch : ({ step }) => step;
    this.unit = byEpoch ? "epoch" : "step";
    for (const entry of logs.flatMap((log) => log.entries)) {
      entry.heading = byEpoch ? headingOf(entry.epoch) : `${headingOf(entry.epoch)}, step ${entry.step}`;
    }
    this.#places = [...new Set(logs.flatMap((log) => log.entries.map(this.placeOf)))].sort((a, b) => a - b);
    const last = this.#places.length - 1;
    this.#place = this.#follows ? last : Math.max(0, this.#places.findLastIndex((place) => place <= chosen));
    this.slider.max = Math.max(last, 0);
  }

  async #show(log, isShown) {
    if (isShown) this.#shown.add(log.key);
    else this.#shown.delete(log.key);
    try {
      await this.#readShown();
      await this.#update();
    } catch (error) {
      this.#complain(error.message);
    }
  }

  /** Return the newest entry of a run that is not behind the chosen place. */
  #entryOf(log) {
    const place = this.#places[this.#place];
    return log.entries.findLast((entry) => this.placeOf(entry) <= place) ?? null;
  }

  /** Return what the page shows at the moment. */
  #scene() {
    const version = ++this.#version;
    return {
      logs: this.#shownLogs(),
      layer: this.#layer,
      entryOf: (log) => this.#entryOf(log),
      // A run may have no entry at the chosen place, such as a shorter one. Its last one before is shown, and said.
      titleOf: (log) => {
        const entry = this.#entryOf(log);
        const isThere = !entry || this.placeOf(entry) === this.#places[this.#place];
        return [named(log.name), ...(isThere ? [] : [`, ${entry.heading}`])];
      },
      countOf: (log, count) => this.#countOf(log, count),
      isCurrent: () => version === this.#version,
      lookOf: async (log, maps, i, layer = this.#layer) => ({
        colours: log.colours,
        strength: this.#strength,
        hottest: this.#scalingOf(log) !== "run" ? maps.maxima[i] : await log.largest(layer),
      }),
    };
  }

  /** Say how many of the entries of a run something is of. */
  #countOf(log, count) {
    const all = log.history.length;
    return `${count < all ? `${count} of ${all}` : "all"} ${this.unit === "epoch" ? "epochs" : "validations"}`;
  }

  async #draw() {
    const scene = this.#scene();
    const place = this.#places[this.#place];
    this.slider.value = this.#place;
    this.layer.value = this.#layer;
    this.at.textContent = place === undefined ? "" : place < 0 ? "start" : `${this.unit} ${place}`;
    this.slider.setAttribute("aria-valuetext", `${this.at.textContent}, ${this.#place + 1} of ${this.#places.length}`);
    this.follow.setAttribute("aria-pressed", String(this.#follows));
    const filters = [this.#class, this.#wrongOnly ? "wrong only" : "", this.#order === "changed" ? "changed most" : ""];
    this.summary.replaceChildren("Filter and look: ", ...isolated(filters.filter(Boolean).join(", ") || "all images"));
    const thinned = scene.logs.filter((log) => log.entries.length < log.history.length);
    const counts = thinned.map((log) => [...(scene.logs.length > 1 ? [named(log.name), ": "] : []), this.#countOf(log, log.entries.length)]);
    const said = counts.flatMap((count, i) => (i ? ["; ", ...count] : count));
    this.thinned.replaceChildren(...(said.length ? ["Maps and answers of ", ...said, ". The curves below show all."] : []));
    this.thinned.hidden = !said.length;
    const exchanged = new Set(scene.logs.map((log) => `the same ${wordsOf(log).all}`));
    this.exchanged.textContent = [...exchanged].join(", ").replace("the", "The") || "Interventions";
    this.#drawVerdicts(scene);
    this.#drawLegends(scene);
    try {
      await this.#drawImages(scene);
      if (!scene.isCurrent()) return;
      // For whoever waits for the pictures, such as a test.
      document.documentElement.dataset.drawn = String(place);
      // The images come first. Whoever drags the slider on does not wait for the rest.
      await new Promise((done) => setTimeout(done));
      if (!scene.isCurrent()) return;
      this.#drawInterventions(scene);
      this.#drawMasks(scene);
      this.#drawPlots(scene);
      await this.detail.draw(scene);
      if (scene.isCurrent()) this.#complain("", "drawing");
    } catch (error) {
      if (scene.isCurrent()) this.#complain(error.message, "drawing");
    }
  }

  /** Show the verdicts of the shown runs in full, and those of all others in a line each. */
  #drawVerdicts(scene) {
    const others = this.#logs.filter((log) => !scene.logs.includes(log));
    const lines = others.map((log) => lineOf(log, () => this.#show(log, true)));
    const isFolded = others.length > MANY;
    for (const log of scene.logs) {
      const isUnfolded = this.#verdicts.get(log.key)?.querySelector("details")?.open;
      this.#verdicts.set(log.key, verdictOf(log, scene.entryOf(log), isUnfolded));
    }
    this.verdicts.replaceChildren(...scene.logs.map((log) => this.#verdicts.get(log.key)));
    const none = !this.#logs.length
      ? "No run with a GradCAMCallback has been read yet. This page looks for one every few seconds."
      : !this.#shownLogs(false).length ? "No run is chosen. Click on a verdict below, or check a run." : null;
    if (none) this.verdicts.append(h("p", { className: "faint" }, none));
    if (!isFolded) this.verdicts.append(...lines);
    this.others.hidden = !isFolded;
    this.others.replaceChildren(...(isFolded ? [h("summary", {}, `${others.length} more runs: `, ...countsOf(others)), ...lines] : []));
  }

  /** Show what the colours mean, once for all runs whose colours and scaling are the same. */
  #drawLegends(scene) {
    const groups = new Map();
    for (const log of scene.logs) {
      const key = `${this.#scalingOf(log)} ${log.start.colours}`;
      groups.set(key, [...(groups.get(key) ?? []), log]);
    }
    const legends = [...groups.values()].map((logs) => {
      const canvas = h("canvas", { "aria-hidden": "true" });
      drawColours(canvas, logs[0].colours);
      const hottest = this.#scalingOf(logs[0]) !== "run" ? "the maximum of each map" : "the maximum of the layer over the run";
      const names = logs.flatMap(({ name }, i) => [i ? ", " : " (", named(name)]);
      return h("p", { className: "colours" }, "no evidence", canvas, h("span", {}, hottest, ...(groups.size > 1 ? [...names, ")"] : [])));
    });
    this.colours.replaceChildren(...legends);
  }

  async #drawImages(scene) {
    const names = await this.#namesToShow(scene);
    const key = JSON.stringify([scene.logs.map((log) => [log.key, log.began]), names]);
    if (!scene.isCurrent()) return;
    if (key !== this.#cardsKey) {
      this.#cardsKey = key;
      const open = (name) => {
        this.detail.open(name);
        this.detail.draw(this.#scene()).catch((error) => this.#complain(error.message, "drawing"));
      };
      this.#cards = names.map((name) => new Card(name, scene.logs.filter((log) => log.find(name) >= 0), open));
      this.images.replaceChildren(...this.#cards.map((card) => card.element));
      this.images.style.setProperty("--card", `${190 * (1 + scene.logs.length)}px`);
    }
    this.noImages.textContent = names.length || !scene.logs.length ? "" : this.#whyNone(scene);
    await Promise.all(this.#cards.map((card) => card.draw(scene)));
  }

  /** Return the names of the images that the filters leave, in the chosen order. */
  async #namesToShow(scene) {
    const names = [...new Set(scene.logs.flatMap((log) => log.start.names))].filter((name) =>
      scene.logs.some((log) => {
        const i = log.find(name);
        const isOfClass = !this.#class || log.start.labels?.[i] === this.#class;
        return i >= 0 && isOfClass && (!this.#wrongOnly || scene.entryOf(log)?.predictions[i][2] === false);
      }),
    );
    if (this.#order === "given") return names;
    const moved = new Map();
    for (const name of names) moved.set(name, Math.max(...(await Promise.all(scene.logs.map((log) => this.#changeOf(log, name, scene))))));
    return names.sort((a, b) => moved.get(b) - moved.get(a));
  }

  /** Say why the filters leave no image. Without "only wrong" they leave some, as each class is that of an image. */
  #whyNone(scene) {
    const known = scene.logs.some((log) => scene.entryOf(log)?.predictions.some(([, , correct]) => typeof correct === "boolean"));
    if (!known) return `It is not known which images are answered wrongly. Uncheck "${WRONG_ONLY}" to see all.`;
    return `No image${this.#class ? " of this class" : ""} is answered wrongly at this epoch.`;
  }

  async #changeOf(log, name, scene) {
    const i = log.find(name);
    const entry = scene.entryOf(log);
    if (i < 0 || !entry) return 0;
    const [before, after] = await Promise.all([log.entries[0], entry].map(({ step }) => log.mapsAt(scene.layer, step)));
    return change(before, after, i);
  }

  #drawInterventions(scene) {
    this.interventions.replaceChildren(
      ...scene.logs.map((log) => {
        const showAll = () => {
          this.#allObjects.add(log.key);
          this.#draw();
        };
        const shown = interventionsOf(log, scene.entryOf(log), this.#allObjects.has(log.key), showAll);
        return h("section", {}, scene.logs.length > 1 ? h("h3", {}, ...scene.titleOf(log)) : null, shown);
      }),
    );
  }

  #drawMasks(scene) {
    const logs = scene.logs.filter((log) => log.start.automatic_masks);
    this.masks.hidden = !logs.length;
    this.masks.replaceChildren(
      h("h2", {}, "What the automatic masks take for the object"),
      ...logs.map((log) => h("section", {}, scene.logs.length > 1 ? h("h3", {}, ...scene.titleOf(log)) : null, masksOf(log.start))),
    );
  }

  #drawPlots(scene) {
    this.plots.replaceChildren(
      ...scene.logs.map((log) =>
        h("section", {}, scene.logs.length > 1 ? h("h3", {}, named(log.name)) : null, h("div", { className: "plots" }, ...this.#plotsOf(log, scene.entryOf(log)))),
      ),
    );
  }

  #plotsOf(log, entry) {
    const { history, start } = log;
    const values = (name) => history.map(({ scalars }) => scalars[name] ?? null);
    const at = history.map(this.placeOf);
    const ticks = at.map((place) => (place < 0 ? "start" : String(place)));
    const cursor = history.findIndex(({ step }) => step === entry?.step);
    const has = (name) => history.some(({ scalars }) => name in scalars);
    const found = [];
    const partly = partsOf(history);
    const accuracies = { probe_accuracy: "as they are", swap_control_accuracy: "own backgrounds", swap_accuracy: "other backgrounds", frame_control_accuracy: "own frames", frame_accuracy: "other frames" };
    const lines = Object.entries(accuracies).filter(([name]) => has(name)).map(([name, text]) => ({ name: text, values: values(name) }));
    // The scalar is of the watched images only. All other accuracies are of the images that were asked.
    if (lines[0]?.name === "as they are") lines[0].values = history.map(({ verdict, scalars }) => verdict?.probe_accuracy ?? scalars.probe_accuracy ?? null);
    if (lines.length) found.push(plot({ title: "Accuracy on the probe images", ticks, at, cursor, lines, range: [0, 1.02], unit: "%", partly }));
    for (const gap of ["background_gap", "frame_gap"].filter(has)) {
      const line = { name: gap.replace("_", " "), values: values(gap), low: values(`${gap}_low`), high: values(`${gap}_high`) };
      found.push(plot({ title: `What the ${gap.replace("_gap", "")} decides, in points, with its 95\u00a0% interval`, ticks, at, cursor, lines: [line], reference: 0, unit: "points", partly }));
    }
    const byLayer = start.layers.some((layer) => has(`lift/${layer}`)) ? "lift" : "border_mass";
    const title = byLayer === "lift" ? "Lift: the focus on the object, 1 is chance" : `Share of the focus at the border, ${EVEN_BORDER.toFixed(2)} is an even map`;
    const layers = this.#allLayers ? start.layers : start.few_layers;
    const ofLayers = layers.map((layer) => ({ name: layer, values: values(`${byLayer}/${layer}`) }));
    const reference = byLayer === "lift" ? 1 : EVEN_BORDER;
    if (ofLayers.some((line) => line.values.some((value) => value !== null))) {
      found.push(plot({ title: `${title}, over the ${this.unit}s`, ticks, at, cursor, lines: ofLayers, reference }));
      const depth = (each) => start.layers.map((layer) => each.scalars[`${byLayer}/${layer}`] ?? null);
      const depths = [{ name: `at the first entry (${ticks[0]})`, values: depth(history[0]), look: { colour: "var(--line-7)", dash: "5 3" } }];
      if (cursor > 0) depths.push({ name: `now (${ticks[cursor]})`, values: depth(entry), look: { colour: "var(--line-2)", dash: "" } });
      const short = start.layers.map((layer) => layer.replace(/^.*block(\d+)_conv(\d+)$/, "$1_$2"));
      const chosen = start.layers.indexOf(this.#layer);
      found.push(plot({ title: `${title}, through the layers`, ticks: short, cursor: chosen, lines: depths, reference }));
    }
    return found;
  }
}

/** Return the verdict of a run at an entry: the headline, a sentence of evidence, and where to look. */
function verdictOf(log, entry, isUnfolded) {
  const { verdict, heading } = entry ?? {};
  const run = h("span", { className: "run" }, named(log.name), heading ? `, ${heading}` : "");
  if (!verdict) {
    const why = entry ? "No verdict: without labels, nothing is known of the predictions." : "No entry yet.";
    return h("div", { className: "verdict" }, run, h("strong", {}, why), log.start.caution ? h("p", {}, log.start.caution) : null);
  }
  const { advice } = verdict;
  const sentences = verdict.evidence.slice(0, verdict.evidence.length - advice.length).trim().split(/(?<=\.) (?=[A-Z])/);
  const first = sentences.find((sentence) => / decides? /.test(sentence)) ?? sentences[0];
  const rest = sentences.filter((sentence) => sentence !== first).join(" ");
  const masks = log.start.automatic_masks ? [link("#masks", "the masks"), ", "] : [];
  return h(
    "div",
    { className: `verdict ${verdict.tone}` },
    run,
    h("strong", {}, ...isolated(verdict.headline)),
    h("p", {}, ...isolated(first), " See ", link("#interventions", `the ${wordsOf(log).all}`), ", ", ...masks, "and ", link("#plots", "the training"), "."),
    advice ? h("p", {}, ...linked(advice, log)) : null,
    rest ? h("details", { open: isUnfolded }, h("summary", {}, "All that is known"), h("p", {}, ...isolated(rest))) : null,
  );
}

/** Return a text for which the sheets of the training are parts of the page. */
function linked(text, log) {
  const places = { "the counterfactuals": ["#interventions", `the ${wordsOf(log).all}`], "gradcam/masks": ["#masks", "the automatic masks"] };
  return text.split(/(the counterfactuals|gradcam\/masks)/).flatMap((part) => (places[part] ? [link(...places[part])] : isolated(part)));
}

/** Say which entries asked a part of the images that the verdict rests on; null if all asked the same number. */
function partsOf(history) {
  const counts = history.map(({ judged }) => judged).filter(Boolean);
  const all = Math.max(...counts);
  const fewer = [...new Set(counts)].filter((count) => count < all).sort((a, b) => a - b);
  if (!fewer.length) return null;
  return { at: history.map(({ judged }) => Boolean(judged) && judged < all), text: `${fewer.join(" or ")} of ${all} images` };
}

/** Return the newest verdict of a run in one line. A click shows the run. */
function lineOf(log, show) {
  const { newest } = log.run;
  const run = h("span", { className: "run" }, named(log.name), newest ? `, ${headingOf(newest.epoch)}` : "");
  const said = newest ? (newest.headline ?? "No verdict, since there are no labels.") : "No logged validation yet.";
  const properties = { type: "button", className: `verdict line ${newest?.tone ?? ""}`, title: "Show this run", onclick: show };
  return h("button", properties, run, h("strong", {}, ...isolated(said)));
}

/** Count the newest verdicts of runs by what they say. */
function countsOf(logs) {
  const kinds = { suspected: "with a suspicion", clear: "without a sign", unknown: "not known" };
  const counts = Object.keys(kinds).map((tone) => logs.filter((log) => (log.run.newest?.tone ?? "unknown") === tone).length);
  return Object.entries(kinds).flatMap(([tone, text], i) => (counts[i] ? [h("span", { className: `count ${tone}` }, `${counts[i]} ${text}`), " "] : []));
}

/** Return a link to a part of the page. The address of TensorBoard's tab must not change, so it only scrolls. */
function link(target, text) {
  const scroll = (event) => {
    event.preventDefault();
    document.querySelector(target).scrollIntoView({ behavior: "smooth" });
  };
  return h("a", { href: target, onclick: scroll }, text);
}

function fillLayers(element, layers, chosen) {
  const groups = new Map();
  for (const layer of layers) {
    const block = layer.match(/^(.*block\d+)_conv\d+$/)?.[1] ?? "";
    if (!groups.has(block)) groups.set(block, []);
    groups.get(block).push(option(layer, layer));
  }
  replaceOptions(element, [...groups].map(([block, options]) => (block ? h("optgroup", { label: block }, ...options) : options)).flat());
  element.value = chosen;
}

/** Give a list its choices, each a value and its text, and choose one. */
function choose(element, choices, chosen) {
  replaceOptions(element, choices.map(([value, text]) => option(value, text)));
  element.value = chosen;
}

/** Replace the options of a list if they are others. A list that somebody has opened stays open. */
function replaceOptions(element, options) {
  const others = h("select", {}, ...options);
  if (others.innerHTML !== element.innerHTML) element.replaceChildren(...others.children);
}

function option(value, text) {
  return h("option", { value }, text);
}

function select(choices, choose) {
  const element = h("select", { onchange: () => choose(element.value) }, ...Object.entries(choices).map(([value, text]) => option(value, text)));
  return element;
}
