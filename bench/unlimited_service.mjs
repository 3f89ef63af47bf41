// The built service without the limit on the calls of one token: a load generator sends one token with all calls.
import { limits } from '../dist/src/limits.js';

Object.assign(limits, { callsPerSecond: 1e9, callsPerToken: 1e9 });
await import('../dist/src/cli/agentllm.js');
