// Checks a provider in a separate process, so that a test can choose its environment.
// Usage: node --import tsx ask_process.ts '<JSON of CheckJob>'; prints the results as JSON.
import { addressList } from '../../src/domain/addresses.js';
import type { Provider } from '../../src/domain/rows.js';
import { checkProvider } from '../../src/providers/check_provider.js';
import { fakeResolver, type Resolutions } from './fake_resolver.js';

export interface CheckJob {
  readonly provider: Provider;
  readonly key: string;
  readonly models: readonly string[];
  readonly names: Readonly<Record<string, Resolutions>>;
}

const { provider, key, models, names } = JSON.parse(process.argv[2] ?? '') as CheckJob;
fakeResolver(names);
const options = { allowed: addressList(['127.0.0.0/8', '::1/128']), timeoutMs: 10_000 };
process.stdout.write(JSON.stringify(await checkProvider(provider, key, models, options)));
