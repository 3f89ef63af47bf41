/**
 * Imports an optional peer dependency, on its first use. The name is no literal, so that bundlers neither include the
 * package nor warn that it is missing. The CommonJS build replaces this file by `import_peer.cjs`, because the compiler
 * would turn `import` into `require`, which cannot load an ESM package in every version of Node.
 */
export const importPeer = (name: string): Promise<unknown> => import(name);
