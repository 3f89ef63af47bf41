import { loadPeer } from '../peer_loader.js';
import type { Specification } from './sdk_types.js';

/** The major versions of the provider packages that belong to `ai` 6 (V3) and `ai` 7 (V4). */
const MAJORS: Readonly<Record<string, Readonly<Record<Specification, number>>>> = {
  '@ai-sdk/openai': { v3: 3, v4: 4 },
  '@ai-sdk/anthropic': { v3: 3, v4: 4 },
  '@ai-sdk/xai': { v3: 3, v4: 5 },
  '@ai-sdk/deepseek': { v3: 2, v4: 3 },
  '@ai-sdk/openai-compatible': { v3: 2, v4: 3 },
};

/** Imports a package on its first use. Rejects with a MissingPackageError if it is not installed. */
export const loadPackage = (name: string, specification: Specification) =>
  loadPeer(name, MAJORS[name]?.[specification]);
