// Debian's libjs-vega is a folder of modules: each is a function in `vegaModules`, called once by the first that
// asks for it.
"use strict";
const vegaModules = {};
const vega = (() => {
  const made = {};
  const load = (name) => {
    if (name === "vega-selections") name = "vega-selection";
    if (!(name in made)) {
      if (!(name in vegaModules)) throw new Error("no module " + name);
      vegaModules[name](made[name] = {}, { exports: made[name] }, load);
    }
    return made[name];
  };
  return load;
})();
