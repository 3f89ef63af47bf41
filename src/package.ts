import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The package's own directory, from the source tree as well as from what is built of it. */
const root = (() => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) directory = dirname(directory);
  return directory;
})();

/** Path of a file that ships with the package. */
export const packageFile = (name: string): string => join(root, name);

/** The package's version. */
export const version: string = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')).version;
