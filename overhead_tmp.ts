import { createServer } from 'node:http';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { AgentLanguageModel } from './src/client/ai/language_model.js';
import { Runtime } from './src/client/runtime/runtime.js';
import { chainAgent } from './test/client/runtime/support.js';
const body = JSON.stringify({ id: '1', model: 'm', created: 1, choices: [{ index: 0, message: { role: 'assistant', content: 'hello' }, finish_reason: 'stop' }], usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 } });
const server = createServer((q, r) => { q.resume(); q.on('end', () => { r.writeHead(200, { 'content-type': 'application/json' }); r.end(body); }); });
await new Promise<void>((r) => server.listen(0, '127.0.0.1', r));
const url = `http://127.0.0.1:${(server.address() as { port: number }).port}/v1`;
const ref = createOpenAICompatible({ name: 'p', baseURL: url, apiKey: 'k' }).chatModel('m0');
const base = chainAgent({ url }); const resolved = base.resolve(); const agent = { ...base, resolve: () => resolved };
const own = new AgentLanguageModel('v3', agent, new Runtime(() => {}), []);
const options = { prompt: [{ role: 'user' as const, content: [{ type: 'text' as const, text: 'hi' }] }] };
const t: Record<string, number[]> = { ref: [], own: [] };
for (let i = 0; i < 3000; i++) for (const [n, m] of [['ref', ref], ['own', own]] as const) { const s = performance.now(); await m.doGenerate(options as never); t[n]!.push(performance.now() - s); }
const q = (a: number[], p: number) => [...a].slice(500).sort((x, y) => x - y)[Math.floor((a.length - 500) * p)]!.toFixed(3);
console.log('p50', q(t.ref!, 0.5), q(t.own!, 0.5), 'p99', q(t.ref!, 0.99), q(t.own!, 0.99));
server.close(); server.closeAllConnections(); process.exit(0);
