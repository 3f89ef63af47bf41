/**
 * A module of the build, which is what users run. tsx, which runs the scripts, adds work to each function that a call
 * creates, to keep its name.
 * @param path below `src`.
 */
export const built = async <Module>(path: string): Promise<Module> =>
  import(new URL(`../dist/src/${path}`, import.meta.url).href);
