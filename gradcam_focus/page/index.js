// The entry of TensorBoard, which calls `render` in a frame of the tab.
import { ServedSource } from "./data.js";
import { Focus } from "./focus.js";

export function render() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("./focus.css", import.meta.url).href;
  document.head.append(style);
  followTheme();
  new Focus(document.body, new ServedSource(new URL("../", import.meta.url))).begin();
}

/** Take over the theme of TensorBoard, which marks it at the body of its own page. */
function followTheme() {
  const outer = window.parent.document.body;
  const take = () => {
    document.documentElement.dataset.theme = outer.classList.contains("dark-mode") ? "dark" : "light";
  };
  new MutationObserver(take).observe(outer, { attributeFilter: ["class"] });
  take();
}
