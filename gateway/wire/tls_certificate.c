/* tls_certificate.c: a self-signed certificate for a machine that has none: what is in it.
 *   X.509 v3, ECDSA P-256 with SHA-256, random 128-bit serial, valid from unix_ms for `days`
 *   subject = issuer: CN = the first name
 *   subjectAltName: each name as dNSName, or as iPAddress where it is one
 *   keyUsage digitalSignature, extKeyUsage serverAuth, basicConstraints CA:FALSE
 * Apart from tls_boringssl.c because it is no part of the engine. */
#include "gateway/wire/tls.h"

#include "core/file.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define SERIAL_BYTES          16
#define NAME_BYTES_MAX        255
#define COMMON_NAME_BYTES_MAX 64 /* ub-common-name, RFC 5280 A.1 */
#define PATH_BYTES_MAX        4096

static bool name_add(GENERAL_NAMES *names, const char *text)
{
    uint8_t address[16];
    bool ipv4 = inet_pton(AF_INET, text, address) == 1;
    bool ipv6 = !ipv4 && inet_pton(AF_INET6, text, address) == 1;
    bool is_ip = ipv4 || ipv6;
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_STRING *value = ASN1_STRING_type_new(is_ip ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
    bool good = name != NULL && value != NULL &&
                ASN1_STRING_set(value, is_ip ? (const void *)address : text,
                                is_ip ? (ipv4 ? 4 : 16) : (int)strlen(text)) == 1;
    if (!good) {
        ASN1_STRING_free(value);
        GENERAL_NAME_free(name);
        return false;
    }
    GENERAL_NAME_set0_value(name, is_ip ? GEN_IPADD : GEN_DNS, value);
    if (sk_GENERAL_NAME_push(names, name) == 0) {
        GENERAL_NAME_free(name);
        return false;
    }
    return true;
}

/* subject_set: CN = the first name, as far as it fits; issuer the same. */
static bool subject_set(X509 *certificate, const char *first)
{
    X509_NAME *subject = X509_NAME_new();
    bool good = subject != NULL;
    if (good && strlen(first) <= COMMON_NAME_BYTES_MAX)
        good = X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)first, -1,
                                          -1, 0) == 1;
    good = good && X509_set_subject_name(certificate, subject) == 1 &&
           X509_set_issuer_name(certificate, subject) == 1;
    X509_NAME_free(subject);
    return good;
}

/* names_add: subject and subjectAltName from "a,b,192.0.2.1". */
static bool names_add(X509 *certificate, const char *names)
{
    GENERAL_NAMES *list = sk_GENERAL_NAME_new_null();
    bool good = list != NULL && *names != '\0';
    for (bool first = true; good && *names != '\0'; first = false) {
        char text[NAME_BYTES_MAX + 1];
        size_t size = strcspn(names, ",");
        good = size != 0 && size < sizeof text;
        if (!good)
            break;
        memcpy(text, names, size);
        text[size] = '\0';
        names += size + (names[size] == ',' ? 1 : 0);
        good = name_add(list, text) && (!first || subject_set(certificate, text));
    }
    good = good &&
           X509_add1_ext_i2d(certificate, NID_subject_alt_name, list, 0, X509V3_ADD_DEFAULT) == 1;
    sk_GENERAL_NAME_pop_free(list, GENERAL_NAME_free);
    return good;
}

/* usage_add: a leaf for servers: digitalSignature, serverAuth. */
static bool usage_add(X509 *certificate)
{
    ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    EXTENDED_KEY_USAGE *purposes = sk_ASN1_OBJECT_new_null();
    BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();
    bool good =
        usage != NULL && purposes != NULL && constraints != NULL &&
        ASN1_BIT_STRING_set_bit(usage, 0, 1) == 1 &&
        sk_ASN1_OBJECT_push(purposes, OBJ_nid2obj(NID_server_auth)) != 0 &&
        X509_add1_ext_i2d(certificate, NID_key_usage, usage, 1, X509V3_ADD_DEFAULT) == 1 &&
        X509_add1_ext_i2d(certificate, NID_ext_key_usage, purposes, 0, X509V3_ADD_DEFAULT) == 1 &&
        X509_add1_ext_i2d(certificate, NID_basic_constraints, constraints, 1, X509V3_ADD_DEFAULT) ==
            1;
    ASN1_BIT_STRING_free(usage);
    sk_ASN1_OBJECT_free(purposes); /* the object itself is the library's constant */
    BASIC_CONSTRAINTS_free(constraints);
    return good;
}

static EVP_PKEY *key_make(void)
{
    EVP_PKEY *key = EVP_PKEY_new();
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    bool good = key != NULL && ec != NULL && EC_KEY_generate_key(ec) == 1 &&
                EVP_PKEY_set1_EC_KEY(key, ec) == 1;
    EC_KEY_free(ec);
    if (good)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

static X509 *certificate_make(EVP_PKEY *key, const char *names, uint32_t days, uint64_t unix_ms)
{
    uint8_t serial[SERIAL_BYTES];
    RAND_bytes(serial, sizeof serial);
    serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of full length */
    int64_t begin = (int64_t)(unix_ms / 1000);
    BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
    X509 *certificate = X509_new();
    bool good =
        number != NULL && certificate != NULL &&
        X509_set_version(certificate, X509_VERSION_3) == 1 &&
        BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL &&
        ASN1_TIME_set(X509_getm_notBefore(certificate), begin) != NULL &&
        ASN1_TIME_set(X509_getm_notAfter(certificate), begin + (int64_t)days * 86400) != NULL &&
        X509_set_pubkey(certificate, key) == 1 && names_add(certificate, names) &&
        usage_add(certificate) && X509_sign(certificate, key, EVP_sha256()) != 0;
    BN_free(number);
    if (good)
        return certificate;
    X509_free(certificate);
    return NULL;
}

/* pem_store: whole or not at all: written beside and renamed. */
static enum err pem_store(BIO *bio, const char *path, uint32_t flags)
{
    char beside[PATH_BYTES_MAX];
    const uint8_t *data;
    size_t size;
    int written = snprintf(beside, sizeof beside, "%s.new", path);
    if (written <= 0 || (size_t)written >= sizeof beside ||
        BIO_mem_contents(bio, &data, &size) != 1)
        return ERR_INVALID;
    int fd = -1;
    enum err err = file_remove(beside);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    TRY(file_open(&fd, beside, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | flags));
    err = file_write(fd, 0, bytes_of(data, size));
    if (err == OK)
        err = file_sync(fd);
    file_close(fd);
    return err == OK ? file_rename(beside, path) : err;
}

enum err tls_make_certificate(const char *certificate_path, const char *key_path, const char *names,
                              uint32_t days, uint64_t unix_ms)
{
    enum err err = ERR_INVALID;
    EVP_PKEY *key = key_make();
    X509 *certificate = key == NULL ? NULL : certificate_make(key, names, days, unix_ms);
    BIO *key_pem = BIO_new(BIO_s_mem());
    BIO *certificate_pem = BIO_new(BIO_s_mem());
    if (certificate != NULL && key_pem != NULL && certificate_pem != NULL &&
        PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) == 1 &&
        PEM_write_bio_X509(certificate_pem, certificate) == 1) {
        err = pem_store(key_pem, key_path, FILE_PRIVATE);
        if (err == OK)
            err = pem_store(certificate_pem, certificate_path, 0);
    }
    BIO_free(key_pem);
    BIO_free(certificate_pem);
    X509_free(certificate);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return err;
}
