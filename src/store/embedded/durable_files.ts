import { closeSync, fsyncSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import { NodeFS } from '@electric-sql/pglite/nodefs';

/**
 * Adds fsync to PGlite's file system for Node, which does not implement it (0.5.16: NODEFS.stream_ops lacks it, and
 * fdatasync is a stub). PGlite also starts PostgreSQL with `-F`. With this class a commit costs one fsync: 0.2 ms more
 * on a virtual disk.
 */
export class DurableNodeFS extends NodeFS {
  override async init(...[database, options]: Parameters<NodeFS['init']>): ReturnType<NodeFS['init']> {
    const { emscriptenOpts } = await super.init(database, options);
    emscriptenOpts.preRun = [...(emscriptenOpts.preRun ?? []), (module: unknown) => addFsync(module)];
    return { emscriptenOpts };
  }
}

/** The default `wal_sync_method`, fdatasync, is a stub within the WebAssembly module. */
export const DURABLE_START_PARAMS = [
  ...PGlite.defaultStartParams.filter((parameter) => parameter !== '-F'),
  '-c',
  'wal_sync_method=fsync',
];

interface EmscriptenNode {
  name: string;
  parent: EmscriptenNode;
  mount: { opts: { root: string } };
}

interface ModuleWithNodeFiles {
  NODEFS: { stream_ops: { fsync?: (stream: { nfd?: number; node: EmscriptenNode }) => number } };
}

function addFsync(module: unknown): void {
  (module as ModuleWithNodeFiles).NODEFS.stream_ops.fsync = ({ nfd, node }) => {
    if (nfd !== undefined) fsyncSync(nfd);
    else fsyncDirectory(realPath(node));
    return 0;
  };
}

export function fsyncDirectory(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function realPath(node: EmscriptenNode): string {
  const names: string[] = [];
  for (let current = node; current.parent !== current; current = current.parent) names.unshift(current.name);
  return join(node.mount.opts.root, ...names);
}
