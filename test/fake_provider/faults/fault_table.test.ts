import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { faultMarkdown, faultRows } from '../../../src/fake_provider/faults/fault_table.js';
import { packageFile } from '../../../src/package.js';

const PAGE = packageFile('docs/rehearsal.md');
const MARKED = /<!-- faults -->\n[\s\S]*<!-- \/faults -->/;

describe('docs/rehearsal.md', () => {
  it('has the table of the faults; UPDATE_DOCS=1 writes it', () => {
    const page = readFileSync(PAGE, 'utf8');
    const expected = page.replace(MARKED, () => `<!-- faults -->\n${faultMarkdown()}\n<!-- /faults -->`);
    if (process.env['UPDATE_DOCS'] === '1') writeFileSync(PAGE, expected);
    else expect(page).toBe(expected);
  });
});

describe('the catalogue of faults', () => {
  it('has a distinct name and description for each fault', () => {
    const rows = faultRows();
    expect(rows.length).toBeGreaterThan(50);
    expect(new Set(rows.map(({ name }) => name)).size).toBe(rows.length);
    expect(rows.filter(({ name }) => !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name))).toEqual([]);
    expect(
      rows.filter(({ description }) => description === '' || description.endsWith('.') || description.includes('|')),
    ).toEqual([]);
  });
});
