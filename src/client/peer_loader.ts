import { importPeer } from './import_peer.js';
import { MissingPackageError } from './missing_package.js';

type Module = Readonly<Record<string, unknown>>;

const modules = new Map<string, Promise<Module>>();

/**
 * Imports an optional peer dependency on its first use. Rejects with a MissingPackageError if it is not installed.
 *
 * @param major the major version that the install command names; undefined: none.
 */
export function loadPeer(name: string, major: number | undefined): Promise<Module> {
  const known = modules.get(name);
  if (known) return known;
  const loading = importPeer(name).then(
    (module) => module as Module,
    (error: unknown) => {
      // Once it is installed, the next call finds it.
      modules.delete(name);
      const command = `npm install ${name}${major === undefined ? '' : `@${major}`}`;
      throw isMissing(error, name) ? new MissingPackageError(name, command, error) : error;
    },
  );
  modules.set(name, loading);
  return loading;
}

/** Whether an import failed because the package itself, and not one that it needs, cannot be found. */
function isMissing(error: unknown, name: string): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const isNotFound = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND';
  return isNotFound && String(message).includes(`'${name}'`);
}
