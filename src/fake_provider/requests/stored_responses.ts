import { limits } from '../../limits.js';
import type { Credential } from '../credential.js';

/** The ids of the responses that the Responses API has stored, with the ids of their items. */
export class StoredResponses {
  private readonly items = new Map<string, ReadonlySet<string>>();

  store(credential: Credential, responseId: string, itemIds: readonly string[]): void {
    const [oldest] = this.items.keys();
    if (this.items.size >= limits.fakeProvider.storedResponses && oldest !== undefined) this.items.delete(oldest);
    this.items.set(`${credential.tag} ${responseId}`, new Set(itemIds));
  }

  hasResponse(credential: Credential, responseId: string): boolean {
    return this.items.has(`${credential.tag} ${responseId}`);
  }

  hasItem(credential: Credential, itemId: string): boolean {
    return [...this.items].some(([key, ids]) => key.startsWith(`${credential.tag} `) && ids.has(itemId));
  }
}
