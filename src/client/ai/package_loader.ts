import { importPeer } from '../import_peer.js';
import { MissingPackageError } from './missing_package.js';
import type { Specification } from './sdk_types.js';

/** The major versions of the provider packages that belong to `ai` 6 (V3) and `ai` 7 (V4). */
const MAJORS: Readonly<Record<string, Readonly<Record<Specification, number>>>> = {
  '@ai-sdk/openai': { v3: 3, v4: 4 },
  '@ai-sdk/anthropic': { v3: 3, v4: 4 },
  '@ai-sdk/xai': { v3: 3, v4: 5 },
  '@ai-sdk/deepseek': { v3: 2, v4: 3 },
  '@ai-sdk/openai-compatible': { v3: 2, v4: 3 },
};

type Modules = Map<string, Promise<Readonly<Record<string, unknown>>>>;
const modules: Modules = new Map();

/** Imports a package on its first use. Rejects with a MissingPackageError if it is not installed. */
export function loadPackage(name: string, specification: Specification): Promise<Readonly<Record<string, unknown>>> {
  const known = modules.get(name);
  if (known) return known;
  const loading = importPeer(name).then(
    (module) => module as Readonly<Record<string, unknown>>,
    (error: unknown) => {
      // Once it is installed, the next call finds it.
      modules.delete(name);
      throw isMissing(error, name) ? new MissingPackageError(name, installCommand(name, specification), error) : error;
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

function installCommand(name: string, specification: Specification): string {
  const major = MAJORS[name]?.[specification];
  return `npm install ${name}${major === undefined ? '' : `@${major}`}`;
}
