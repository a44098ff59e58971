// What the interpreter takes from vega-util, out of the Vega build that is already loaded.
export const { ascending, isString, DisallowedObjectProperties } = globalThis.vega;
