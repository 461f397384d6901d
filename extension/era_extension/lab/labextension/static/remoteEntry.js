// @ts-check
/**
 * The module-federation container that JupyterLab loads, written by hand: a bundler
 * would add nothing to two small files.
 *
 * JupyterLab adds this file as a classic script, calls `init` with the modules that the
 * extensions share, and takes from `get` a promise of a function that returns a module.
 */
(() => {
  /** @typedef {{ get: () => any, loaded?: any }} Shared one version of a shared module */

  const script = /** @type {HTMLScriptElement} */ (document.currentScript);
  const folder = new URL(".", script.src);

  /** @type {Record<string, Record<string, Shared>>} by name, then by version */
  let scope = {};

  /**
   * JupyterLab's own copy of a module.
   *
   * @param {string} name
   * @returns {Promise<any>} null if this front end does not have it
   */
  async function shared(name) {
    const versions = Object.entries(scope[name] ?? {});
    if (!versions.length) return null;
    versions.sort(([a], [b]) => b.localeCompare(a, undefined, { numeric: true }));
    // These modules are singletons: a version that is in use already is the one.
    const [, version] = versions.find(([, { loaded }]) => loaded) ?? versions[0];
    return (await version.get())();
  }

  async function extension() {
    const [{ plugins }, apputils, coreutils, services, statusbar, widgets] = await Promise.all([
      import(new URL("notices.js", folder).href),
      shared("@jupyterlab/apputils"),
      shared("@jupyterlab/coreutils"),
      shared("@jupyterlab/services"),
      shared("@jupyterlab/statusbar"),
      shared("@lumino/widgets"),
    ]);
    return { default: plugins({ apputils, coreutils, services, statusbar, widgets }) };
  }

  async function style() {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL("notices.css", folder).href;
    document.head.append(link);
    return {};
  }

  /** @type {Record<string, () => Promise<object>>} */
  const modules = { "./extension": extension, "./style": style };

  const container = {
    /** @param {typeof scope} shareScope */
    init(shareScope) {
      scope = shareScope;
    },
    /** @param {string} name */
    async get(name) {
      if (!(name in modules)) throw new Error(`era-extension has no module ${name}`);
      const module = await modules[name]();
      return () => Object.defineProperty(module, "__esModule", { value: true });
    },
  };

  const page = /** @type {any} */ (window);
  page._JUPYTERLAB = page._JUPYTERLAB ?? {};
  page._JUPYTERLAB["era-extension"] = container;
})();
