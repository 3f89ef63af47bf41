import { describe, expect, it } from 'vitest';
import { resolvedMessage } from '../../src/api/messages/resolution.js';
import { resolutionOf } from '../../src/rehearsal/resolution.js';
import { agentRow } from '../domain/support.js';
import { twoHops } from './support.js';

describe('resolutionOf', () => {
  it('restores the resolution that the service has converted to a message', () => {
    const original = twoHops();
    const resolved = resolvedMessage(agentRow(), original);
    const restored = resolutionOf({ resolved, revision: 7n });
    expect(restored.hops).toEqual(original.hops.map((hop) => ({ ...hop, price: undefined })));
    expect(restored).toMatchObject({
      agent: { id: original.agent.id, name: original.agent.name },
      skipped: [],
      revision: 7n,
    });
  });
});
