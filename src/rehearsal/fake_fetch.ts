import type { Fetch } from '../client/runtime/fetch.js';
import type { FakeProvider } from '../fake_provider/fake_provider.js';

/** A `fetch` that replaces the origin of every request by that of a fake provider, so that no other host is contacted. */
export const fetchAt =
  ({ url }: FakeProvider): Fetch =>
  (input, init) => {
    const { pathname } = new URL(input instanceof Request ? input.url : input);
    return fetch(`${url}${pathname}`, init);
  };
