import { connect as connectSocket, type Socket } from 'node:net';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
import type { limits } from '../../src/limits.js';
import { connect } from '../support/service.js';
import { startLimitedTarget, type Target } from './attacked_service.js';

const AGENTS = 100;
const PROMPT = 'x'.repeat(57_000);

/** A service with the changed limits and with agents with long prompts: a list of them has 5.7 MB. */
export function useLongAgents(changed: Partial<Record<keyof typeof limits, number>>): () => Target {
  let target: Target | undefined;
  beforeAll(async () => {
    target = await startLimitedTarget(changed);
    const { agents, close } = connect(target.grpcPort);
    for (let n = 0; n < AGENTS; n++)
      await agents.createAgent({ agent: { name: `long_${n}`, agent_type: 'long', prompt_template: PROMPT } });
    // Warms the process up, so that its initial growth is not measured.
    for (let n = 0; n < 10; n++) await agents.listAgents({ page_size: 1000 });
    close();
  }, 120_000);
  afterAll(() => target?.stop());
  return () => target as Target;
}

/** A connection that is closed at the end of the test. */
export async function openSocket(port: number): Promise<Socket> {
  const socket = connectSocket({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  onTestFinished(() => void socket.destroy());
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket;
}
