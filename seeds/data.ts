import { readFileSync } from 'node:fs';
import { packageFile } from '../src/package.js';

/** Reads one of the data files of the seeds. */
export const readData = <T>(name: 'agents' | 'providers' | 'models'): readonly T[] =>
  JSON.parse(readFileSync(packageFile(`seeds/data/${name}.json`), 'utf8'));
