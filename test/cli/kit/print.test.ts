import { describe, expect, it } from 'vitest';
import { tableOf } from '../../../src/cli/kit/lists.js';
import { record } from '../../../src/cli/kit/print.js';
import type { Call } from '../../../src/cli/kit/remote_command.js';
import { writeSummary } from '../../../src/cli/kit/writes.js';

describe('printed output', () => {
  it('escapes control and invisible characters in results and titles', () => {
    const name = 'a\u202eb\u200bc\u00ad';
    const escaped = 'a\\u{202e}b\\u{200b}c\\u{ad}';
    const call = { inputs: { message: {} } } as unknown as Call;
    expect(writeSummary(call, 'created', `agent ${name}`, { revision: 4n })).toBe(
      `created agent ${escaped} at revision 4`,
    );
    expect(record([[name, [['role', name]]]])).toBe(`${escaped}\n  role  ${escaped}`);
  });

  it('truncates a cell of a list that exceeds the maximum width', () => {
    const list = { columns: [['NAME', (row: string) => row]], empty: '' } as const;
    expect(tableOf(['x'.repeat(200)], list, 100)).toBe(`NAME\n${'x'.repeat(99)}…`);
  });
});
