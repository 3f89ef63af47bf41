import dns, { type LookupAddress } from 'node:dns';
import { syncBuiltinESMExports } from 'node:module';

/** The result of a lookup: addresses, an error code, or `silence`: no result ever. */
export type Resolution = readonly string[] | { readonly code: string } | 'silence';
/** One result for all lookups of a name, or one for each lookup in order, of which the last repeats. */
export type Resolutions = Resolution | { readonly inTurn: readonly Resolution[] };

/** Replaces the resolver of Node.js until `restore` is called, and records the looked up names. */
export function fakeResolver(table: Readonly<Record<string, Resolutions>>): { lookups: string[]; restore: () => void } {
  const real = dns.lookup;
  const lookups: string[] = [];
  const install = (lookup: unknown) => {
    dns.lookup = lookup as typeof dns.lookup;
    syncBuiltinESMExports();
  };
  install(
    (name: string, options: dns.LookupOptions, callback: (error: Error | null, found?: LookupAddress[]) => void) => {
      const resolutions = table[name];
      if (!resolutions) return (real as (...args: unknown[]) => void)(name, options, callback);
      lookups.push(name);
      const resolution = resolutionOf(resolutions, lookups.filter((lookup) => lookup === name).length);
      if (resolution === 'silence') return;
      if ('code' in resolution) return void setImmediate(callback, Object.assign(new Error('lookup'), resolution));
      const found = resolution.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
      setImmediate(callback, null, found);
    },
  );
  return { lookups, restore: () => install(real) };
}

function resolutionOf(resolutions: Resolutions, lookup: number): Resolution {
  if (resolutions === 'silence' || !('inTurn' in resolutions)) return resolutions;
  return resolutions.inTurn[Math.min(lookup, resolutions.inTurn.length) - 1] ?? [];
}
