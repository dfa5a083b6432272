// Draws every <figure class="chart"> from the Vega specification inside it. Colours are the page's own custom
// properties, so that light, dark and print need no second drawing.
"use strict";
(() => {
  const transforms = vega("vega-dataflow").transforms;
  for (const name of ["transforms", "view-transforms", "encode"]) Object.assign(transforms, vega("vega-" + name));
  const { View } = vega("vega-view");
  const { parse } = vega("vega-parser");
  const { expressionInterpreter } = vega("vega-interpreter");

  const font = "system-ui, sans-serif";
  const config = {
    background: null,
    axis: {
      domainColor: "var(--line)", tickColor: "var(--line)", gridColor: "var(--grid)", labelColor: "var(--muted)",
      titleColor: "var(--muted)", labelFont: font, titleFont: font, labelFontSize: 11, titleFontSize: 12,
      titleFontWeight: "normal",
    },
    text: { font },
  };

  const tip = document.getElementById("tip");
  const showTip = (handler, event, item, value) => {
    if (value === null || value === undefined || value === "") {
      tip.hidden = true;
      return;
    }
    const point = event.changedTouches ? event.changedTouches[0] : event;
    tip.textContent = value;
    tip.hidden = false;
    const room = document.documentElement;
    const x = Math.min(point.clientX + 14, room.clientWidth - tip.offsetWidth - 8);
    const below = point.clientY + 16;
    const y = below + tip.offsetHeight > room.clientHeight ? point.clientY - tip.offsetHeight - 10 : below;
    tip.style.left = Math.max(4, x) + "px";
    tip.style.top = Math.max(4, y) + "px";
  };
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  for (const figure of document.querySelectorAll("figure.chart")) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const target = figure.querySelector(".plot");
    spec.width = target.clientWidth;
    const view = new View(parse(spec, config, { ast: true }), {
      renderer: "svg", container: target, hover: true, expr: expressionInterpreter, tooltip: showTip,
    });
    const draw = () => view.runAsync().catch((error) => console.error(spec.description, error));
    draw().then(() => { figure.classList.add("drawn"); });
    // A drawing changes the page's height, which is not to be done while sizes are being observed.
    new ResizeObserver(() => requestAnimationFrame(() => {
      const width = target.clientWidth;
      if (width > 0 && width !== view.width()) {
        view.width(width);
        draw();
      }
    })).observe(target);
  }
})();
