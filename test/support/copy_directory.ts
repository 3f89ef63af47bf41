import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Copies the content of a directory. `cp` takes a quarter of the time of `fs.cp` for the 700 files of a store. */
export async function copyDirectory(from: string, to: string): Promise<void> {
  await promisify(execFile)('cp', ['-pR', `${from}/.`, to]);
}
