import { readFileSync } from 'node:fs';
import { fromHere } from './processes.js';

/** The providers of the desk: their origin, the variable with the key, and their name at the fake provider. */
const PROVIDERS = [
  { name: 'openai', origin: 'https://api.openai.com', variable: 'OPENAI_API_KEY', fake: 'openai' },
  { name: 'claude', origin: 'https://api.anthropic.com', variable: 'ANTHROPIC_API_KEY', fake: 'anthropic' },
  { name: 'deepseek', origin: 'https://api.deepseek.com', variable: 'DEEPSEEK_API_KEY', fake: 'deepseek' },
  { name: 'grok', origin: 'https://api.x.ai', variable: 'GROK_API_KEY', fake: 'xai' },
] as const;
type Provider = (typeof PROVIDERS)[number]['name'];

/**
 * Sends the requests of the agents: to the real provider if its key is set, and otherwise to the fake one. A provider can
 * be made to fail; then its requests go to the fake provider in any case.
 */
export class Providers {
  readonly real: readonly Provider[];
  private failing: Provider | undefined;

  /**
   * @param fakeUrl the URL of the fake provider.
   * @param mayCallReal whether a provider whose key is set is called instead of the fake one.
   */
  constructor(
    private readonly fakeUrl: string,
    mayCallReal = true,
  ) {
    this.real = PROVIDERS.filter(({ variable }) => mayCallReal && process.env[variable]).map(({ name }) => name);
    // A hop without a key is skipped. This key is sent to the fake provider only.
    for (const { variable } of PROVIDERS) process.env[variable] ||= 'key-of-the-fake-provider';
  }

  /** For the option `fetch` of `languageModel()`. */
  readonly fetch: typeof globalThis.fetch = (input, init) => {
    const { origin, pathname } = new URL(String(input));
    const provider = PROVIDERS.find((one) => one.origin === origin);
    if (!provider) throw new Error(`The desk has no provider at ${origin}`);
    if (this.real.includes(provider.name) && this.failing !== provider.name) return fetch(input, init);
    const headers = new Headers(init?.headers);
    for (const name of ['authorization', 'x-api-key']) headers.delete(name);
    return fetch(`${this.fakeUrl}/${provider.fake}${pathname}`, { ...init, headers });
  };

  /** From now on, the provider reports that it is overloaded. */
  async fail(name: Provider): Promise<void> {
    const fake = PROVIDERS.find((one) => one.name === name)?.fake;
    await this.setRules([{ match: { provider: fake }, fault: 'overloaded' }]);
    this.failing = name;
  }

  async recover(): Promise<void> {
    this.failing = undefined;
    await this.setRules([]);
  }

  /** Replaces the rules of the fake provider; the responses stay. */
  private async setRules(faults: readonly object[]): Promise<void> {
    const { rules } = JSON.parse(readFileSync(fromHere('responses.json'), 'utf8')) as { rules: object[] };
    const body = JSON.stringify({ rules: [...faults, ...rules] });
    const { ok, status } = await fetch(`${this.fakeUrl}/_fake/faults`, { method: 'PUT', body });
    if (!ok) throw new Error(`The fake provider rejects the rules with ${status}`);
  }
}
