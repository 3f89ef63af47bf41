import { expect, it, onTestFinished, vi } from 'vitest';
import { AccessLog } from '../../../src/api/dispatch/access_log.js';
import type { Token } from '../../../src/domain/rows.js';
import type { Log } from '../../../src/log.js';
import type { Store } from '../../../src/store/store.js';

it('a use of a token that cannot be recorded is logged and recorded later', async () => {
  const recorded = vi.fn().mockRejectedValueOnce(new Error('no such column'));
  const raw = (sql: string, bindings?: [number[]]) => (sql.startsWith('update') ? recorded(bindings?.[0]) : sql);
  const knex = Object.assign(() => ({ insert: async () => undefined }), { raw });
  const log = { warn: vi.fn() };
  const accessLog = new AccessLog({ database: { knex } } as unknown as Store, log as unknown as Log);
  onTestFinished(() => accessLog.close());
  accessLog.used({ id: 7, token_id: 'al_k3x9q2m7wd' } as Token);
  await accessLog.flush();
  await accessLog.flush();
  expect(log.warn).toHaveBeenCalledExactlyOnceWith(
    { err: new Error('no such column') },
    'the last uses of tokens could not be recorded; the next attempt includes them',
  );
  expect(recorded.mock.calls).toEqual([[[7]], [[7]]]);
});
