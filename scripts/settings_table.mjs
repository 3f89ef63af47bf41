// Writes the settings table of the README from src/config.ts; run after npm run build.
import { readFileSync, writeFileSync } from 'node:fs';
import { settings } from '../dist/src/config.js';

const rows = Object.entries(settings).map(
  ([name, { defaultText, description }]) => `| \`${name}\` | \`${defaultText}\` | ${description} |`,
);
const table = ['| name | default | meaning |', '|---|---|---|', ...rows].join('\n');
const readme = readFileSync('README.md', 'utf8');
const marked = /<!-- settings -->[\s\S]*<!-- \/settings -->/;
writeFileSync('README.md', readme.replace(marked, `<!-- settings -->\n${table}\n<!-- /settings -->`));
