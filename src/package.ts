import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root directory of the package, both in the source tree and in the build output. */
const root = (() => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json'))) directory = dirname(directory);
  return directory;
})();

/** The path of a file that ships with the package. */
export const packageFile = (name: string): string => join(root, name);

/** The version of the package. */
export const version: string = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')).version;
