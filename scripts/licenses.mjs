// Writes docs/licenses.md from the lock file: every runtime package and its licence. With --check it writes nothing and
// fails when the page is outdated or a licence is not in the list of allowed ones.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

/** Licences that require only a notice. */
const ALLOWED = new Set(['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT']);
const PAGE = 'docs/licenses.md';

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
const packages = Object.entries(lock.packages)
  .filter(([path, { dev }]) => path !== '' && !dev)
  .map(([path, { version, license }]) => ({ name: path.replace(/^.*node_modules\//, ''), version, license }));
const shipped = [...new Map(packages.map((one) => [`${one.name} ${one.version}`, one])).values()];
shipped.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));

// Every part must be allowed. This also applies to `MIT OR GPL-3.0`, because someone must decide which licence applies.
const parts = (license) => license.replaceAll(/[()]/g, '').split(/ AND | OR /);
const refused = shipped.filter(({ license }) => !license || !parts(license).every((one) => ALLOWED.has(one)));
for (const { name, license } of refused) console.error(`${name} has the licence ${license ?? '(none)'}; see ${PAGE}`);

const rows = shipped.map(({ name, version, license }) => `| \`${name}\` | ${version} | ${license} |`);
const page = `# Licences

Every package that runs with the service or the client, as the lock file has it; \`npm run licenses\` writes this page. All
of them may be shipped with a notice: ${[...ALLOWED].join(', ')}. Packages of optional platforms are in it too.

| package | version | licence |
|---|---|---|
${rows.join('\n')}
`;
const check = process.argv.includes('--check');
const stale = !existsSync(PAGE) || readFileSync(PAGE, 'utf8') !== page;
if (!check && stale) writeFileSync(PAGE, page);
if (check && stale) console.error(`${PAGE} is outdated; run npm run licenses`);
process.exitCode = refused.length > 0 || (check && stale) ? 1 : 0;
