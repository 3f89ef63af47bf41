import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { settings } from '../src/config.js';
import { packageFile } from '../src/package.js';

const readme = readFileSync(packageFile('README.md'), 'utf8');

describe('the README', () => {
  it('lists every setting with the default and the description of the code', () => {
    for (const [name, { defaultText, description }] of Object.entries(settings))
      expect(readme).toContain(`| \`${name}\` | \`${defaultText}\` | ${description} |`);
  });

  it('names only npm scripts that exist', () => {
    const { scripts } = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { scripts: object };
    for (const [, script] of readme.matchAll(/npm run ([\w:-]*\w)/g)) expect(Object.keys(scripts)).toContain(script);
  });
});
