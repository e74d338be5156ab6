import { describe, expect, it } from 'vitest';
import {
  type Endpoint,
  giveEndpointBack,
  hasCalled,
  isPast,
  lastOwnCall,
  nextOwnCall,
  ownEndpointId,
  refuseDeadlock,
  takeEndpoint,
} from '../../lib/deadlock.js';

const refused = (endpoint: Endpoint): boolean => {
  try {
    refuseDeadlock(endpoint, 'method');
    return false;
  } catch (error) {
    expect(error).toMatchObject({ name: 'RpalError', code: 'EDEADLK' });
    return true;
  }
};

describe('what is known of another thread', () => {
  let names = 0;
  const fresh = (call: number): Endpoint => takeEndpoint(`thread ${String((names += 1))}`, call);

  it('is that it waits from a synchronous call to its answer', () => {
    const endpoint = fresh(0);
    hasCalled(endpoint, 1, false);
    expect(refused(endpoint)).toBe(false);
    hasCalled(endpoint, 2, true);
    expect(refused(endpoint)).toBe(true);
    isPast(endpoint, 1);
    expect(refused(endpoint)).toBe(true);
    isPast(endpoint, 2);
    expect(refused(endpoint)).toBe(false);
  });

  it('is that it does not wait when it makes another call', () => {
    const endpoint = fresh(0);
    hasCalled(endpoint, 1, true);
    hasCalled(endpoint, 2, false);
    expect(refused(endpoint)).toBe(false);
  });

  it('stays right when its calls arrive in another order than it made them', () => {
    const endpoint = fresh(0);
    hasCalled(endpoint, 2, false);
    hasCalled(endpoint, 1, true);
    expect(refused(endpoint)).toBe(false);
    hasCalled(endpoint, 4, true);
    hasCalled(endpoint, 3, true);
    isPast(endpoint, 3);
    expect(refused(endpoint)).toBe(true);
  });

  it('stays right when a call that it gave up arrives after the news', () => {
    const endpoint = fresh(0);
    isPast(endpoint, 1);
    hasCalled(endpoint, 1, true);
    expect(refused(endpoint)).toBe(false);
  });

  it('stays right when its numbers begin anew', () => {
    const endpoint = fresh(0xffffffff);
    hasCalled(endpoint, 0, true);
    expect(refused(endpoint)).toBe(true);
    isPast(endpoint, 0xffffffff);
    expect(refused(endpoint)).toBe(true);
    hasCalled(endpoint, 1, false);
    expect(refused(endpoint)).toBe(false);
    // The first that is heard of a thread may be far from 0.
    expect(refused(fresh(0x90000000))).toBe(false);
  });

  it('is shared by its connections, and learns from each new one', () => {
    const endpoint = takeEndpoint('shared', 5);
    hasCalled(endpoint, 6, true);
    expect(takeEndpoint('shared', 5)).toBe(endpoint);
    expect(refused(endpoint)).toBe(true);
    expect(takeEndpoint('shared', 6)).toBe(endpoint);
    expect(refused(endpoint)).toBe(false);
    giveEndpointBack(endpoint);
    giveEndpointBack(endpoint);
    expect(takeEndpoint('shared', 6)).toBe(endpoint);
    giveEndpointBack(endpoint);
    giveEndpointBack(endpoint);
    expect(takeEndpoint('shared', 6)).not.toBe(endpoint);
  });
});

it('refuses synchronous calls of a thread to itself', () => {
  expect(refused(takeEndpoint(ownEndpointId, 0))).toBe(true);
});

it('gives every call of this thread another number', () => {
  const first = nextOwnCall();
  expect(nextOwnCall()).toBe(first + 1);
  expect(lastOwnCall()).toBe(first + 1);
});
